//! Module content.
