"""Prints the SHA-256 of a disk. Arguments: a module of libyal, an image, its parent, the parent's parent..."""

import hashlib
import importlib
import sys

module = importlib.import_module(sys.argv[1])
# Parents first. Each has to be kept: an image does not hold on to its parent.
images = []
for path in reversed(sys.argv[2:]):
    image = module.file()
    image.open(path)
    if images:
        image.set_parent(images[-1])
    images.append(image)

size, at, digest = image.get_media_size(), 0, hashlib.sha256()
while at < size:
    piece = image.read_buffer_at_offset(min(1 << 20, size - at), at)
    if not piece:
        sys.exit(f"nothing at {at} of {size}")
    digest.update(piece)
    at += len(piece)
print(digest.hexdigest())
