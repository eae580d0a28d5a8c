//! What an acknowledgement means.
