"""GAN systems: the interface that every one of them meets, and one file each.

A system says which networks it has, which losses they minimise and in what order they are
updated; it knows nothing of the loop, the step or the backend that trains it.
"""
