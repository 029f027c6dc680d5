//! Artifacts: packages unpacked and compiled in the local function folder.
