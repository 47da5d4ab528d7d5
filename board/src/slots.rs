//! Which firmware boots: two slots, one choice (design §7).
