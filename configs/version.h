#pragma once
// The version that programs print, runs store and peers say in their hello.

namespace temper {

inline constexpr char kVersion[] = TEMPER_VERSION;  // from CMakeLists.txt

}  // namespace temper
