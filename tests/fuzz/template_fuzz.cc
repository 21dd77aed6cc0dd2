#include "engine/template.h"
#include "tests/fuzz/fuzz.h"

const char* const kFuzzWords[] = {"{{ ",
                                  " }}",
                                  "{% ",
                                  " %}",
                                  "{%- ",
                                  " -%}",
                                  "for m in messages",
                                  "endfor",
                                  "if ",
                                  "elif ",
                                  "else",
                                  "endif",
                                  "set x = ",
                                  "set ns.x = ns",
                                  "namespace(x=1)",
                                  "macro f(a, b=1)",
                                  "endmacro",
                                  "f(f)",
                                  "loop",
                                  "loop.changed(loop)",
                                  "messages",
                                  "m.content",
                                  "| tojson",
                                  "| sort",
                                  "| map('upper')",
                                  "is defined",
                                  "[::-1]",
                                  ".split('a')",
                                  ".items()",
                                  "generation",
                                  "endgeneration",
                                  "raw",
                                  "endraw",
                                  "{# #}",
                                  "range(9)",
                                  "~",
                                  "**",
                                  "not in",
                                  nullptr};

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace temper;
  static const Json messages = Json::parse(
      R"([{"role": "system", "content": "s"}, {"role": "user", "content": "hé\n"}, {"role": "assistant", "content": null, "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"a": [1, 2.5, true]}}}]}, {"role": "tool", "content": ""}])");
  fuzz::Refusing([&] {
    const engine::ChatTemplate chat_template({reinterpret_cast<const char*>(data), size}, "T");
    engine::ChatOptions options;
    options.add_generation_prompt = size % 2 == 0;
    options.tools =
        Json::parse(R"([{"type": "function", "function": {"name": "f", "parameters": {}}}])");
    const auto out =
        chat_template.Render(messages, options, {{"bos_token", "<s>"}, {"eos_token", "</s>"}});
    for (const auto& [begin, end] : out.generated) {
      fuzz::Require(begin <= end && end <= out.text.size(), "a generated part outside the text");
    }
  });
  return 0;
}
