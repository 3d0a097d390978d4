"use strict";
// Text of models and tools reaches the page through text nodes only; nothing here parses HTML.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const items = data.items;
  const byId = (id) => document.getElementById(id);
  const PAGE = 100;
  const wide = window.matchMedia("(min-width: 56.01rem)");
  const FILTERS = ["run", "verdict", "family", "class"];
  const COLOURS = { reasoner: 0, assistant: 0, planner: 4, executor: 1, caller: 1, summarizer: 2, user: 3, checker: 5, tool: 6, system: 6 };

  // Control and direction-changing characters would hide or reorder what a model really wrote: show their codes.
  const HIDDEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\u{e0000}-\u{e007f}]/gu;
  const visible = (text) => String(text).replace(HIDDEN, (c) => "\u27e8U+" + c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0") + "\u27e9");

  function make(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes || {})) if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
    for (const child of children.flat(Infinity)) if (child !== null && child !== undefined) node.append(child instanceof Node ? child : visible(child));
    return node;
  }
  const colour = (name) => {
    if (Object.hasOwn(COLOURS, name)) return COLOURS[name];
    let sum = 0;
    for (const c of String(name)) sum = (sum * 31 + c.codePointAt(0)) % 6000;
    return sum % 6;
  };
  const percent = (x) => x === null ? "\u2013" : (100 * x).toFixed(x === 0 || x === 1 ? 0 : 1) + " %";
  const number = (x) => Number(x).toLocaleString("en", { maximumFractionDigits: 2 });
  const passed = (item) => item.score !== null && item.score >= 1;
  const verdictOf = (item) => (item.score === null ? "not judged" : passed(item) ? "passed" : "failed");
  const runName = (item) => data.runs[item.run];
  const text = (item) => (item.text ??= [item.id, item.family, item.why, item.class || "", ...item.messages.flatMap((m) => [m.text, m.speaker || m.role, m.unparsed || "", (m.calls || []).flat(3).join(" ")])].join("\n").toLowerCase());
  const long = (value) => (String(value).length > 1500 || String(value).split("\n").length > 18 ? " long" : "");

  const readHash = () => new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  let state = readHash();
  let shown = PAGE;
  let chosen = [];

  function href(changes) {
    const next = new URLSearchParams(state);
    for (const [key, value] of Object.entries(changes)) value === "" || value === null ? next.delete(key) : next.set(key, value);
    return "#" + (next.toString() || "trajectories");
  }
  const matches = (item) => {
    const words = (state.get("q") || "").toLowerCase().split(/\s+/).filter(Boolean);
    return (
      (!state.get("run") || runName(item) === state.get("run")) &&
      (!state.get("verdict") || verdictOf(item) === state.get("verdict")) &&
      (!state.get("family") || item.family === state.get("family")) &&
      (!state.get("class") || item.class === state.get("class")) &&
      words.every((word) => text(item).includes(word))
    );
  };

  function buildFilters() {
    const distinct = (get) => [...new Set(items.map(get))].filter((v) => v !== null && v !== "");
    const options = { run: data.runs, verdict: distinct(verdictOf).sort(), family: distinct((i) => i.family).sort(), class: Object.keys(data.classes).filter((c) => items.some((i) => i.class === c)) };
    const names = { run: "Run", verdict: "Verdict", family: "Family", class: "Why it failed" };
    for (const key of FILTERS) {
      const select = make("select", { id: "f-" + key }, make("option", { value: "" }, "All"), options[key].map((v) => make("option", { value: v }, v)));
      select.addEventListener("change", () => narrow({ [key]: select.value }));
      byId("filters").append(make("label", { for: "f-" + key }, names[key], select));
    }
    const search = make("input", { id: "f-q", type: "search", autocomplete: "off", placeholder: "words, names, ids" });
    let timer;
    search.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(() => narrow({ q: search.value }), 150); });
    byId("filters").append(make("label", { for: "f-q" }, "Search", search));
  }

  function narrow(changes) {
    history.replaceState(null, "", href({ ...changes, t: "" }));
    state = readHash();
    shown = PAGE;
    render();
  }

  function row(index) {
    const item = items[index];
    const mark = item.score === null ? "\u2013" : passed(item) ? "\u2713" : "\u2717";
    const kind = item.score === null ? "" : passed(item) ? " pass" : " fail";
    const partial = item.score > 0 && item.score < 1 ? percent(item.score) : null;
    const meta = [item.family, item.class, partial, data.runs.length > 1 ? runName(item) : null].filter(Boolean).join(" \u00b7 ");
    return make("li", {}, make("a", { href: href({ t: index }), "aria-current": index === current() ? "true" : null },
      make("span", { class: "mark" + kind, role: "img", "aria-label": verdictOf(item) }, mark), make("span", { class: "ask" }, item.ask || item.id), make("span", { class: "meta" }, meta)));
  }

  const current = () => {
    const wanted = state.get("t");
    if (wanted !== null && /^\d+$/.test(wanted) && Number(wanted) < items.length) return Number(wanted);
    return wide.matches && chosen.length ? chosen[0] : null;
  };

  function render() {
    for (const key of FILTERS) byId("f-" + key).value = state.get(key) || "";
    if (document.activeElement !== byId("f-q")) byId("f-q").value = state.get("q") || "";
    chosen = items.map((_, i) => i).filter((i) => matches(items[i]));
    byId("count").textContent = number(chosen.length) + " of " + number(items.length) + " trajectories";
    const list = byId("list");
    const place = list.scrollTop;
    const at = chosen.indexOf(current());
    while (shown <= at) shown += PAGE;
    list.replaceChildren(...chosen.slice(0, shown).map(row));
    if (chosen.length > shown) {
      const more = make("button", { type: "button" }, "Show " + Math.min(PAGE, chosen.length - shown) + " more");
      more.addEventListener("click", () => { const first = shown; shown += PAGE; render(); list.children[first].firstChild.focus(); });
      list.append(make("li", { class: "more" }, more));
    }
    if (!chosen.length) list.append(make("li", { class: "more soft" }, "No trajectory matches."));
    list.scrollTop = place;
    const open = list.children[at]; // its offsets count from the page's top, like the list's own
    if (open && (open.offsetTop < list.offsetTop + list.scrollTop || open.offsetTop + open.offsetHeight > list.offsetTop + list.scrollTop + list.clientHeight)) list.scrollTop = open.offsetTop - list.offsetTop - list.clientHeight / 3;
    byId("browser").classList.toggle("open", state.get("t") !== null);
    detail(current());
  }

  function detail(index) {
    const pane = byId("detail");
    if (index === null) return pane.replaceChildren(make("p", { class: "soft" }, items.length ? "Choose a trajectory." : "This run has no trajectories."));
    const item = items[index];
    const at = chosen.indexOf(index);
    pane.replaceChildren(
      make("div", { class: "bar" }, make("a", { id: "back", href: href({ t: "" }) }, "\u2190 All trajectories"), make("h3", { tabindex: "-1", class: "mono" }, item.id),
        make("span", {}, step("Previous", chosen[at - 1]), " ", step("Next", at >= 0 ? chosen[at + 1] : undefined))),
      ...verdict(item), facts(item), ...folds(item), ...item.messages.map((message, i) => bubble(item, message, i)));
  }

  function step(label, target) {
    const button = make("button", { type: "button", disabled: target === undefined }, label);
    button.addEventListener("click", () => { location.hash = href({ t: target }); });
    return button;
  }

  function verdict(item) {
    const kind = item.score === null ? "" : passed(item) ? " pass" : " fail";
    const lines = [make("p", {}, make("span", { class: "badge" + kind }, verdictOf(item) + (item.score === null ? "" : " \u00b7 " + percent(item.score))), " ",
      item.class ? make("b", {}, item.class) : null, item.class ? " \u2013 it " + data.classes[item.class] + "." : null)];
    if (item.why) lines.push(make("p", { class: "small" }, make("span", { class: "soft" }, "Judge: "), item.why));
    if (item.parts.length) lines.push(make("ul", { class: "facts" }, item.parts.map(([name, value]) => make("li", {}, name + " ", make("b", {}, percent(value))))));
    return lines;
  }

  function facts(item) {
    const sum = (i) => item.turns.reduce((total, turn) => total + turn[i], 0);
    const pairs = [["family", item.family], ["run", runName(item)], ["seed", item.seed], ["stop", item.stop], ["model calls", item.turns.length], ["tokens read", number(sum(1))],
      ["of them cached", number(sum(2))], ["tokens written", number(sum(3))], ["seconds", number(sum(4))], ["lineage", item.lineage.join(" \u2190 ")]];
    return make("ul", { class: "facts soft" }, pairs.filter(([, value]) => value !== "").map(([name, value]) => make("li", {}, name + " ", make("b", { class: "mono" }, value))));
  }

  function folds(item) {
    const fold = (title, ...content) => make("details", { class: "fold" }, make("summary", {}, title), content);
    const found = [];
    const entries = (pairs) => make("div", { class: "call" }, values(pairs));
    if (item.calls.length || item.expected.length) found.push(fold("What was expected", item.calls.map(callBox), item.expected.length ? entries(item.expected) : null));
    if (item.tools.length) found.push(fold("Tools offered (" + item.tools.length + ")", item.tools.map((i) => toolBox(data.tools[i]))));
    if (item.state) found.push(fold("Final state", make("pre", scroller("call" + long(item.state)), item.state)));
    return found;
  }

  const scroller = (className) => (className.includes("long") ? { class: className, tabindex: "0" } : { class: className });
  const values = (pairs) => make("dl", {}, pairs.map(([key, value]) => [make("dt", {}, key), make("dd", scroller("value" + long(value)), value)]));
  const callBox = ([name, pairs]) => make("div", { class: "call" }, make("span", { class: "name" }, name + (pairs.length ? "" : "()")), pairs.length ? values(pairs) : null);

  const toolBox = ([name, description, parameters]) => make("div", { class: "call" }, make("span", { class: "name" }, name), make("div", {}, description), make("pre", { class: "soft" }, parameters));

  function bubble(item, message, i) {
    const who = message.speaker || message.role;
    const turn = item.turns.find((t) => t[0] === i);
    const cost = turn ? number(turn[1] - turn[2]) + " read" + (turn[2] ? " + " + number(turn[2]) + " cached" : "") + ", " + number(turn[3]) + " written, " + number(turn[4]) + " s" + (turn[5] === "end" ? "" : ", " + turn[5]) : "";
    const label = message.role === "tool" ? "observation" + (message.name ? " of " + message.name : "") + (message.failed ? ", failed" : "") : who + (message.lenient ? ", read leniently" : "");
    const failed = message.failed === true;
    const box = make("article", { class: "message r" + colour(message.role === "assistant" ? who : message.role) + (failed ? " failed" : "") }, make("div", { class: "who" }, make("b", {}, label), make("span", {}, cost)));
    if (message.text || !(message.calls || message.unparsed !== undefined)) box.append(make("div", scroller("text" + (message.role === "tool" ? " mono" : "") + long(message.text)), message.text || "(empty)"));
    for (const call of message.calls || []) box.append(callBox(call));
    if (message.unparsed !== undefined) box.append(make("div", { class: "call broken" }, make("span", { class: "name" }, "could not be read as a call"), make("pre", scroller("text" + long(message.unparsed)), message.unparsed)));
    return box;
  }

  function onHash() {
    if (location.hash && !location.hash.includes("=") && location.hash !== "#trajectories") return; // a section's anchor
    const before = state.get("t");
    state = readHash();
    render();
    if (state.get("t") !== null && state.get("t") !== before) {
      if (!wide.matches) byId("detail").scrollIntoView();
      byId("detail").querySelector("h3").focus({ preventScroll: true });
    } else if (location.hash.includes("=")) byId("trajectories").scrollIntoView();
  }

  buildFilters();
  render();
  if (location.hash.includes("=")) (state.get("t") !== null && !wide.matches ? byId("detail") : byId("trajectories")).scrollIntoView();
  window.addEventListener("hashchange", onHash);
  wide.addEventListener("change", render);
  document.documentElement.dataset.ready = String(items.length);
})();
