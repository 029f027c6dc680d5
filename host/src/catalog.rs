//! Which versions there are.
