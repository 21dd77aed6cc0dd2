#include "engine/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cstdint>
#include <new>

#include "configs/error.h"
#include "configs/json.h"

namespace temper::engine {
namespace {

constexpr std::uint32_t kMatchLimit = 20'000'000;  // PCRE2's unit: one internal match call
constexpr std::uint32_t kHeapLimitKib = 64 * 1024;
constexpr std::size_t kJitStack = std::size_t{1} << 20;

struct FreeMatchData {
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
};
struct FreeMatchContext {
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
};
struct FreeCompileContext {
  void operator()(pcre2_compile_context* p) const { pcre2_compile_context_free(p); }
};
struct FreeJitStack {
  void operator()(pcre2_jit_stack* p) const { pcre2_jit_stack_free(p); }
};

std::string PcreMessage(int code) {
  unsigned char buffer[256];
  const int length = pcre2_get_error_message(code, buffer, sizeof buffer);
  return length < 0 ? "error " + std::to_string(code) : reinterpret_cast<const char*>(buffer);
}

// What matching needs beside the compiled patterns, which threads share: one a thread, for good (a
// JIT stack is mapped memory).
struct MatchScratch {
  std::unique_ptr<pcre2_match_data, FreeMatchData> data{pcre2_match_data_create(1, nullptr)};
  std::unique_ptr<pcre2_match_context, FreeMatchContext> context{
      pcre2_match_context_create(nullptr)};
  std::unique_ptr<pcre2_jit_stack, FreeJitStack> stack{
      pcre2_jit_stack_create(32 * 1024, kJitStack, nullptr)};

  MatchScratch() {
    if (!data || !context || !stack) throw std::bad_alloc();
    pcre2_set_match_limit(context.get(), kMatchLimit);
    pcre2_set_heap_limit(context.get(), kHeapLimitKib);
    pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
  }
};

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  ~Code() { pcre2_code_free(code); }
};

Regex::Regex(const std::string& pattern, const std::string& where)
    : pattern_(pattern), where_(where), code_(std::make_unique<Code>()) {
  const std::string translated = TranslatePattern(pattern, where);
  const std::unique_ptr<pcre2_compile_context, FreeCompileContext> context(
      pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  code_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                              PCRE2_UTF | PCRE2_UCP, &error, &offset, context.get());
  if (!code_->code) {
    throw UserError(where + ": pattern " + configs::Quote(pattern) + ": " + PcreMessage(error));
  }
  // Without a JIT (or with memory locked down) the interpreter gives the same matches.
  pcre2_jit_compile(code_->code, PCRE2_JIT_COMPLETE);
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;

bool Regex::MayBeEmpty() const {
  std::uint32_t empty = 1;
  pcre2_pattern_info(code_->code, PCRE2_INFO_MATCHEMPTY, &empty);
  return empty != 0;
}

bool Regex::Find(std::string_view text, std::size_t from, std::size_t* begin,
                 std::size_t* end) const {
  thread_local MatchScratch scratch;
  const int rc = pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                             from, PCRE2_NO_UTF_CHECK, scratch.data.get(), scratch.context.get());
  if (rc == PCRE2_ERROR_NOMATCH) return false;
  if (rc < 0) {
    throw UserError(where_ + ": pattern " + configs::Quote(pattern_) + " gave up on a text of " +
                    std::to_string(text.size()) + " bytes: " + PcreMessage(rc));
  }
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(scratch.data.get());
  *begin = offsets[0];
  *end = offsets[1];
  return true;
}

}  // namespace temper::engine
