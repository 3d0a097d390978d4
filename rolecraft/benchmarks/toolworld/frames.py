"""The sentences that ask: training frames, and held-out ones that appear in no training or pretraining text."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Frames:
    """Sentence frames with `{placeholders}`; the held-out ones belong to the `phrasing` split alone."""

    training: tuple[str, ...]
    held_out: tuple[str, ...]

    def pick(self, random: Random, *, unseen: bool) -> str:
        """Return one frame of the asked side."""
        return random.choice(self.held_out if unseen else self.training)


LOOKUP = Frames(
    training=(
        "What is the {topic} of {entity}?",
        "What's the {topic} of {entity}?",
        "What's {entity}'s {topic}?",
        "What {topic} does {entity} have?",
        "Which {topic} does the {kind} {entity} have?",
        "How much is the {topic} of {entity}?",
        "How high is the {topic} of {entity}?",
        "How large is the {topic} of the {kind} {entity}?",
        "Do you know the {topic} of {entity}?",
        "Can you tell me what the {topic} of {entity} is?",
        "Could you check the {topic} of {entity}?",
        "May I have the {topic} for {entity}?",
        "Is there a figure for the {topic} of {entity}?",
        "Which number is the {topic} of {entity}?",
        "Tell me the {topic} of {entity}.",
        "Find the {topic} for {entity}.",
        "Find out the {topic} that {entity} has.",
        "Give me {entity}'s {topic}.",
        "Give the {topic} of the {kind} {entity}.",
        "Look up the {topic} of {entity}.",
        "Look at {entity} and report the {topic}.",
        "Search for {entity} and tell me its {topic}.",
        "Show the {topic} of the {kind} {entity}.",
        "Read out the {topic} for {entity}.",
        "Fetch the {topic} of {entity} for me.",
        "Get me the {topic}, it is about {entity}.",
        "Check {entity} for its {topic}.",
        "Let me see the {topic} of {entity}.",
        "For the {kind} {entity}, give the {topic}.",
        "For {entity} I want the {topic}.",
        "I need the {topic} of {entity}.",
        "I need the {topic} for {entity}.",
        "I need to know {entity}'s {topic}.",
        "I want to see the {topic} of {entity}.",
        "I would like to know the {topic} of {entity}.",
        "I forgot the {topic} of {entity}.",
        "I am looking for the {topic} of the {kind} {entity}.",
        "I am curious about the {topic} of {entity}.",
        "I wonder what the {topic} of {entity} is.",
        "I have to write down the {topic} of {entity}.",
        "We have to know the {topic} of {entity} today.",
        "We are missing the {topic} of {entity}.",
        "Someone asked me about the {topic} of {entity}.",
        "My boss wants the {topic} of {entity}.",
        "{entity}: {topic}?",
        "{topic} of {entity}",
        "{topic} for the {kind} {entity}",
        "{entity}, {topic}, please.",
        "The {topic} of {entity}?",
        "The {topic} for {entity}, please.",
        "About {entity}: I only need the {topic}.",
        "{entity} is a {kind}. I want its {topic}.",
        "We are writing about {entity}. What is its {topic}?",
        "My report on {entity} lacks the {topic}. What is it?",
        "I have a question about {entity}. What is the {topic}?",
        "There is a {kind} called {entity}. What is its {topic}?",
        "The {topic} is missing in my notes on {entity}. Fill it in.",
        "I know {other} well, but what is the {topic} of {entity}?",
        "Not {other}: I need the {topic} of {entity}.",
        "What is the {topic} of {entity}? I do not mean {other}.",
        "{other} is done. Now the {topic} of {entity}.",
    ),
    held_out=(
        "Would it be possible to learn which {topic} belongs to {entity}?",
        "Talking of {entity}, any idea about its {topic}?",
        "{entity} came up in a meeting, and nobody could say what the {topic} was.",
        "My notes say {topic}, then {entity}, and then the number is smudged.",
        "Before I sign anything I must hear how {entity} stands in terms of {topic}.",
        "Remind me, {topic} at {entity} was what again?",
        "As far as {topic} goes, where do we find {entity}?",
        "Could someone dig up {entity} along with its {topic}?",
        "Fill the blank: the {topic} of {entity} equals ___.",
        "That {kind}, {entity}, surely comes with a {topic}; I am after the figure.",
        "Leave {other} aside; it is {entity} whose {topic} matters.",
        "Kindly state, regarding {entity}, the {topic}.",
    ),
)
"""About one topic of one entity: hub, recover, records, and (with no function for the topic) irrelevant."""

OFF_TOPIC = Frames(
    training=(
        "Write a poem about {entity}.",
        "Tell me a joke.",
        "What do you think of {entity}?",
        "Do you like {entity}?",
        "Translate this into French: good morning.",
        "Sing a song for {entity}.",
        "Book a table for two at {entity}.",
        "Send a letter to {entity}.",
        "Draw a picture of {entity}.",
        "Is it going to rain tomorrow?",
        "Please call {entity} and say hello.",
        "Who will win the game tonight?",
        "Order a pizza for me.",
        "Wake me up at seven.",
        "I feel sad today.",
        "Remove {entity} from the list.",
        "Rename {entity} to {other}.",
        "Write a story about {entity} and {other}.",
        "How do I cook rice?",
        "Buy me a ticket to {entity}.",
        "Turn off the lights at {entity}.",
        "Why is the sky blue?",
    ),
    held_out=(
        "Compose a birthday speech for {entity}.",
        "Which film should I watch with {entity} tonight?",
        "Be so kind as to water my plants while I visit {entity}.",
        "Convince {entity} that {other} is wrong.",
        "Is there life on Mars, in your opinion?",
        "Proofread my essay on {entity}.",
        "Play some jazz, would you?",
        "Hold two seats on the night train, my friend.",
    ),
)
"""Requests that look-up functions cannot serve at all."""

HOP = Frames(
    training=(
        "What is the {topic} of the {relation} of {entity}?",
        "What's the {topic} of {entity}'s {relation}?",
        "What {topic} does the {relation} of {entity} have?",
        "How much is the {topic} of the {relation} of {entity}?",
        "How high is the {topic} of {entity}'s {relation}?",
        "Which {topic} has the {relation} of the {kind} {entity}?",
        "Can you find the {topic} of the {relation} of {entity}?",
        "Do you know the {topic} of {entity}'s {relation}?",
        "Tell me the {topic} of the {relation} of {entity}.",
        "Give me the {topic} of {entity}'s {relation}.",
        "Find the {relation} of {entity} and tell me the {topic}.",
        "Find the {relation} of {entity}, then its {topic}.",
        "Look up the {relation} of {entity} and then that one's {topic}.",
        "Get the {topic} for the {relation} of {entity}.",
        "Show me the {topic} of whoever is the {relation} of {entity}.",
        "First the {relation} of {entity}, then the {topic} of that one.",
        "I need the {topic} of {entity}'s {relation}.",
        "I need the {topic} of the {relation} of {entity}.",
        "I want to know the {topic} of the {relation} of {entity}.",
        "I have {entity} here. What {topic} does its {relation} have?",
        "We know {entity}, but we need the {topic} of its {relation}.",
        "My boss asks for the {topic} of the {relation} of {entity}.",
        "{entity} has a {relation}. What is the {topic} of that one?",
        "{entity} is a {kind} with a {relation}. I want the {topic} of the {relation}.",
        "{entity}'s {relation}: {topic}?",
        "{topic} of the {relation} of {entity}",
        "The {topic} of {entity}'s {relation}, please.",
        "The {relation} of {entity} has which {topic}?",
        "Who is the {relation} of {entity}, and what is the {topic} of that one?",
        "Take the {relation} of the {kind} {entity}. What is the {topic}?",
        "Not {entity} itself: I need the {topic} of its {relation}.",
        "Someone asked for the {topic} of {entity}'s {relation}.",
    ),
    held_out=(
        "Somebody acts as {relation} to {entity}; how large is the {topic} there?",
        "Work out who the {relation} of {entity} is, because it is their {topic} I am after.",
        "Say {entity} had to name its {relation}: which {topic} would go with that name?",
        "Regarding the one that is {relation} for {entity}, kindly state the {topic}.",
        "Starting from {entity}, move on to the {relation} and read off the {topic}.",
        "It is the {relation} behind {entity} whose {topic} matters to us.",
        "Could the {topic} of {entity} be different from that of its {relation}? Just give me the latter.",
        "Behind {entity} stands a {relation}, and the {topic} of the latter is what I lack.",
    ),
)
"""Two look-ups in a chain."""

SEVERAL_ENTITIES = Frames(
    training=(
        "What is the {topic} of {entities}?",
        "What are the {topic} figures of {entities}?",
        "What {topic} do {entities} have?",
        "How high is the {topic} of {entities}?",
        "Can you give me the {topic} for each of {entities}?",
        "Do you know the {topic} of {entities}?",
        "Tell me the {topic} of {entities}.",
        "Find the {topic} for {entities}.",
        "Look up the {topic} of {entities}.",
        "Show the {topic} of each {kind}: {entities}.",
        "Give me the {topic} of {entities}.",
        "Compare the {topic} of {entities}.",
        "Check the {topic} of {entities} for me.",
        "Get {entities} and their {topic}.",
        "I need the {topic} of {entities}.",
        "I need the {topic} for {entities}.",
        "I want to compare {entities} by {topic}.",
        "I would like the {topic} of {entities}.",
        "I am looking at {entities}. What is the {topic} of each?",
        "We have to know the {topic} of {entities}.",
        "Someone asked about the {topic} of {entities}.",
        "{entities}: {topic}?",
        "{topic} of {entities}",
        "The {topic} of {entities}, please.",
        "For {entities}, give the {topic}.",
        "My list has {entities}. Add the {topic} of each.",
        "There are {entities}. Which {topic} does each have?",
        "For each {kind} here I want the {topic}: {entities}.",
    ),
    held_out=(
        "Side by side, how do {entities} look in terms of {topic}?",
        "Kindly state, one by one for {entities}, the {topic}.",
        "With {entities} on my desk, only their {topic} is still unknown.",
        "Line up {entities} and attach to every one its {topic}.",
        "It is {entities} whose {topic} matters to us.",
        "Suppose I were to meet {entities}: which {topic} would they report?",
        "Could someone dig up, along with {entities}, every {topic}?",
        "The column {topic} is empty for {entities}; please complete it.",
    ),
)
"""One topic of two or three entities."""

SEVERAL_TOPICS = Frames(
    training=(
        "What are the {topic} and the {second} of {entity}?",
        "What is the {topic} of {entity}, and what is its {second}?",
        "How high are the {topic} and the {second} of {entity}?",
        "Can you find the {topic} and the {second} of {entity}?",
        "Do you know {entity}'s {topic} and {second}?",
        "Tell me the {topic} and the {second} of {entity}.",
        "Give me both the {topic} and the {second} of {entity}.",
        "Look up {entity}: {topic} and {second}.",
        "Show the {topic} and the {second} of the {kind} {entity}.",
        "Find the {topic} and also the {second} for {entity}.",
        "I need the {topic} and the {second} of {entity}.",
        "I need two figures of {entity}: the {topic} and the {second}.",
        "I want to know the {topic} of {entity} and its {second}.",
        "We are missing the {topic} and the {second} of {entity}.",
        "{entity}: {topic} and {second}?",
        "{topic} and {second} of {entity}",
        "The {topic} and the {second} of {entity}, please.",
        "For {entity}, give the {topic} and the {second}.",
        "My report on {entity} lacks the {topic} and the {second}.",
        "{entity} is a {kind}. I want its {topic} and its {second}.",
    ),
    held_out=(
        "Regarding {entity}, kindly state {topic} as well as {second}.",
        "Two things matter to us about {entity}, namely {topic} and, not least, {second}.",
        "Before I sign anything I must hear the {topic} of {entity} together with its {second}.",
        "Not only the {topic} of {entity} is unknown to me but the {second} too.",
        "How does {entity} stand in terms of {topic}, and where on {second}?",
        "Fill both blanks for {entity}: {topic} ___, {second} ___.",
    ),
)
"""Two topics of one entity."""

TABLE_LOOKUP = Frames(
    training=(
        "In the {kind} table, what is the {topic} of {entity}?",
        "Find {entity} in the table and give its {topic}.",
        "Which {topic} does the table have for {entity}?",
        "What does the database say about the {topic} of {entity}?",
        "Look in the table for the {topic} of {entity}.",
        "I need the {topic} that is stored for {entity}.",
    ),
    held_out=(
        "The row for {entity} surely holds a {topic}; read it off.",
        "According to our data, which {topic} goes with {entity}?",
    ),
)
"""Look-ups that name the table; look-ups in the frames of LOOKUP are as common."""

COUNT = Frames(
    training=(
        "How many {kinds} have {topic} {than} {number}?",
        "How many of the {kinds} have a {topic} {than} {number}?",
        "How many rows have {topic} {than} {number}?",
        "Count the {kinds} with {topic} {than} {number}.",
        "Count all {kinds} whose {topic} is {than} {number}.",
        "Give me the count of {kinds} with {topic} {than} {number}.",
        "I need the count of {kinds} with a {topic} {than} {number}.",
        "I want to know how many {kinds} have {topic} {than} {number}.",
        "Tell me how many {kinds} have a {topic} {than} {number}.",
        "{topic} {than} {number}: how many {kinds}?",
        "With {topic} {than} {number}, how many {kinds} are there?",
        "We look for {kinds} with {topic} {than} {number}. How many are there?",
    ),
    held_out=(
        "Take every one of the {kinds}: in how many cases is the {topic} {than} {number}?",
        "What would be the tally of {kinds}, given a {topic} {than} {number}?",
        "If I keep only {kinds} at {topic} {than} {number}, how many remain?",
    ),
)

BEST = Frames(
    training=(
        "Which {kind} has the {most} {topic}?",
        "What {kind} has the {most} {topic}?",
        "Who has the {most} {topic}?",
        "Find the {kind} with the {most} {topic}.",
        "Tell me which {kind} has the {most} {topic}.",
        "Give me the name of the {kind} with the {most} {topic}.",
        "I need the {kind} with the {most} {topic}.",
        "I am looking for the {kind} with the {most} {topic}.",
        "Of all {kinds}, which one has the {most} {topic}?",
        "{most} {topic}: which {kind}?",
        "The {kind} with the {most} {topic}, please.",
        "We look at {kinds}. Who has the {most} {topic}?",
    ),
    held_out=(
        "When it comes to {topic}, what {kind} stands out as the {most}?",
        "Among our {kinds} one reaches the {most} {topic}; what is it called?",
        "Whose {topic} would you call the {most}?",
    ),
)

DIFFERENCE = Frames(
    training=(
        "What is the difference in {topic} between {first} and {second}?",
        "What is the difference between the {topic} of {first} and that of {second}?",
        "How big is the difference in {topic} between {first} and {second}?",
        "By how much do {first} and {second} differ in {topic}?",
        "Find the difference of {first} and {second} in {topic}.",
        "Tell me the difference in {topic} of {first} and {second}.",
        "I need the difference in {topic} between {first} and {second}.",
        "I want to know how much {first} and {second} differ in {topic}.",
        "Compare {first} and {second}: what is the difference in {topic}?",
        "{first} and {second}: difference in {topic}?",
        "Difference of {topic} between {first} and {second}",
        "How much do the {kinds} {first} and {second} differ in {topic}?",
    ),
    held_out=(
        "How far apart are {first} and {second} in terms of {topic}?",
        "Between {first} and {second} there is a gap in {topic}; how wide is it?",
        "Put {first} next to {second}: how unequal are they as to {topic}?",
    ),
)

ABOVE = ("above", "over", "more than", "greater than", "higher than")
BELOW = ("below", "under", "less than", "smaller than", "lower than")
MOST = ("highest", "largest", "biggest", "greatest")
LEAST = ("lowest", "smallest", "least")

OPENERS = Frames(
    training=(
        "Hello. ",
        "Hi there. ",
        "Please help me. ",
        "One question. ",
        "I have a question. ",
        "I am in a hurry. ",
        "This is for a report. ",
        "We are in a meeting. ",
        "Quick one: ",
        "Listen. ",
        "Good morning. ",
        "I hope you can help. ",
    ),
    held_out=("Sorry to bother you once more. ", "Long story short: ", "Right, so ", "If you have a minute: "),
)
CLOSERS = Frames(
    training=(" Thanks.", " Thank you.", " It is urgent.", " I need it today.", " Be quick.", " Can you help?"),
    held_out=(" Much appreciated.", " Cheers.", " No need to explain."),
)
_OPENED, _CLOSED = 0.15, 0.1


def ask(random: Random, frames: Frames, values: dict[str, str], *, unseen: bool) -> str:
    """Return a question: one frame filled with `values`, now and then with a sentence before or after it."""
    text = frames.pick(random, unseen=unseen).format(**values)
    if random.random() < _OPENED:
        text = OPENERS.pick(random, unseen=unseen) + text
    if random.random() < _CLOSED and text[-1] in ".?":
        text += CLOSERS.pick(random, unseen=unseen)
    return text


def listed(items: list[str]) -> str:
    """Return `A`, `A and B` or `A, B and C`."""
    return " and ".join((", ".join(items[:-1]), items[-1])) if len(items) > 1 else items[0]


def plural(noun: str) -> str:
    """Return the plural of a kind."""
    if noun.endswith("y"):
        return noun[:-1] + "ies"
    return noun + "es" if noun.endswith("o") else noun + "s"
