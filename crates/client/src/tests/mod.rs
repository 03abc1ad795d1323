//! The client against servers that do what a test tells them to.

mod asking;
mod closures;
mod watching;
