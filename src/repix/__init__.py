"""repix: image-to-image translation that can be reproduced, traced and compared.

``docs/architecture.md`` says what each package does and which other packages it may import;
importing this one imports nothing.
"""
