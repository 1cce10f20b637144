//! Key slots: one wrapped master key a file.
