"""The embedded default: a small base model, its tokenizer, and the script that made them."""
