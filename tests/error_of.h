#pragma once
// What a call says when it throws.
#include <functional>
#include <string>

namespace temper {

/// The text of an Error; "" when the call succeeds.
template <class Error>
std::string ErrorOf(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace temper
