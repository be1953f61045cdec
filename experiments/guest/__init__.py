"""The guest: Debian's stock kernel under QEMU, in which runs proceed in virtual time or in real time."""
