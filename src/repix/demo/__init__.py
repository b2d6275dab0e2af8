"""A page to try exported models: pick, upload or draw a source, and see what they make of it."""
