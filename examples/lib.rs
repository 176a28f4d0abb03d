//! Examples of embedding the libraries, one runnable file each.
