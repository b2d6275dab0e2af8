"""A generator in use: value scaling, images of any size, trained and exported models loaded again."""
