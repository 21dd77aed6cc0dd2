#pragma once
// Lua's character classes, as in the C locale.

namespace temper::reward {

/// Whether byte `c` is of class %NAME (an upper-case name: is not); of a NAME that is no class,
/// whether it is that byte.
bool InClass(int c, int name);

}  // namespace temper::reward
