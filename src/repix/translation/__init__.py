"""A trained or exported model applied to images: which model, which runtime, which files."""
