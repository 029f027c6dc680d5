//! Publishing a package as the next version of its function.
