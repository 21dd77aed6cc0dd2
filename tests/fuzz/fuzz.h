#pragma once
// What every fuzz target shares: a file of given bytes, and the rule that only UserError may come
// out.
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace temper::fuzz {

/// A file in memory with these bytes; its path is good until the next call.
std::string FileOf(std::string_view bytes);

/// A folder for this process, removed at its end.
const std::string& Folder();
void Write(const std::string& path, std::string_view bytes);

/// Runs `read`. A UserError is an answer; its text must be one line of bounded length. Anything
/// else that is thrown ends the process.
void Refusing(const std::function<void()>& read);

/// Ends the process with a message unless `holds`.
void Require(bool holds, const char* what);

}  // namespace temper::fuzz

// Words that make inputs of a target interesting; may be empty.
extern const char* const kFuzzWords[];
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
