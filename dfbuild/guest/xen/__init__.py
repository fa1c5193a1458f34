"""Guests under Xen: QEMU runs a Xen host (`build.xen`), whose dom0 creates one domain and passes on its console.

Pure functions compose QEMU's command line and xl's configuration; an agent in dom0 does what xl is needed for.
"""
