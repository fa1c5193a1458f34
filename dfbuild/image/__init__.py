"""Images: kernel, world and templates come in, what a guest boots from goes out."""
