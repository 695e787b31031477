//! Claims about the configure text.
