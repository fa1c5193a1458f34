"""Images: what guests boot from, written byte for byte the same from the same inputs.

In: the files of a kernel and a world, and the templates of `images/`. Out: initramfs, disks and CDs.
"""
