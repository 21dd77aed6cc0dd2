#include "engine/template.h"

#include <gtest/gtest.h>

#include <chrono>
#include <set>

#include "tests/engine/temp_dir.h"

namespace temper::engine {
namespace {

const std::string kGoldens = TEMPER_SOURCE_DIR "/tests/engine/goldens/templates/";

std::vector<Json> Lines(const std::string& name) {
  std::vector<Json> lines;
  std::istringstream in(ReadText(kGoldens + name));
  for (std::string line; std::getline(in, line);) lines.push_back(Json::parse(line));
  return lines;
}

Json Messages() { return Json::parse(R"([{"role": "user", "content": "hi"}])"); }

std::string Rendered(const std::string& source, Json variables = {}) {
  ChatOptions options;
  options.variables = std::move(variables);
  return ChatTemplate(source, "T").Render(Messages(), options, {}).text;
}

std::string Refused(const std::string& source) {
  return Refusal([&] { Rendered(source); });
}

// tests/engine/template_check.py --write: five templates, each in 44 conversations.
TEST(Template, ChatsAreRenderedAsTransformersDoes) {
  const ChatTemplate::Variables tokens = {{"bos_token", "<｜begin▁of▁sentence｜>"},
                                          {"eos_token", "<｜end▁of▁sentence｜>"}};
  const std::vector<Json> lines = Lines("chats.jsonl");
  ASSERT_GE(lines.size(), 200u);
  int refused = 0;
  for (const Json& line : lines) {
    const std::string name = line.at("template");
    const ChatTemplate chat_template(ReadText(kGoldens + name), name);
    const Chat chat = ReadChat(line.at("chat"));
    std::string text;
    const std::string error =
        Refusal([&] { text = chat_template.Render(chat.messages, chat.options, tokens).text; });
    EXPECT_EQ(!error.empty(), line.at("refused").get<bool>()) << name << error << line.at("chat");
    if (error.empty()) {
      EXPECT_EQ(text, line.at("text").get<std::string>()) << name;
    }
    refused += !error.empty();
  }
  EXPECT_GT(refused, 3);
}

// goldens/make_language.py: snippets and what transformers' Jinja makes of them.
TEST(Template, SnippetsOfTheLanguageGiveWhatJinjaGives) {
  // Jinja runs these; here they are refused by name.
  const std::set<std::string> not_ours = {"batch",    "\"format\"", "formatting with %",
                                          "\"self\"", "\"filter\"", "\"block\"",
                                          "iterator", "\"ß\""};
  const std::vector<Json> lines = Lines("language.jsonl");
  int right = 0, wrong = 0;
  for (std::size_t i = 1; i < lines.size(); ++i) {
    const std::string source = lines[i].at("source");
    std::string text;
    const std::string error = Refusal([&] { text = Rendered(source, lines[0].at("variables")); });
    if (lines[i].at("text").is_null()) {
      EXPECT_NE(error, "") << source << "\ngave " << text;
      ++wrong;
      continue;
    }
    const bool known = std::any_of(not_ours.begin(), not_ours.end(), [&](const std::string& what) {
      return error.find(what) != error.npos;
    });
    if (known) continue;
    EXPECT_EQ(error, "") << source;
    EXPECT_EQ(text, lines[i].at("text").get<std::string>()) << source;
    ++right;
  }
  EXPECT_GT(right, 75);
  EXPECT_GT(wrong, 30);
}

TEST(Template, WhatIsNotSupportedIsNamedWithItsLine) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"a\n\n{% include 'x' %}", "T:3: the block \"include\" is not supported"},
      {"{% filter upper %}{% endfilter %}", "T:1: the block \"filter\" is not supported"},
      {"\n{{ messages | batch(2) }}", "T:2: the filter \"batch\" is not supported"},
      {"\n\n{{ messages is filter }}", "T:3: the test \"filter\" is not supported"},
      {"{{ 'a'.format(1) }}", "T:1: the method \"format\" of str is not supported"},
      {"{{ '%s' % 1 }}", "T:1: formatting with % is not supported"},
      {"x\n{{ strftime_now('%Y') }}",
       "T:2: strftime_now is refused: a prompt must not depend on the day"},
      {"{{ cycler(1) }}", "T:1: \"cycler\" is not supported"},
      {"{% for x in y recursive %}{% endfor %}", "T:1: a recursive loop is not supported"},
      {"{% if true %}\n{% for x in y %}{% macro m() %}",
       "T:2: a macro inside of another block is not supported"},
      {"{{ f(*x) }}", "T:1: \"*\" before an argument is not supported"},
      {"{% macro m() %}{{ varargs }}{% endmacro %}",
       "T:1: \"varargs\" of a macro is not supported"},
      {"{{ x[1, 2] }}", "T:1: a subscript of several values is not supported"},
      {"a\n{% if x %}\nb", "T:2: a block without its \"endif\""},
      {"{{ 'x", "T:1: a string without end"},
      {"{{ x", "T:1: a tag without end"},
      {"{# x", "T:1: a comment without end"},
      {"{% raw %}", "T:1: a raw block without end"},
      {"{{ ä }}", "T:1: unexpected \"ä\""},
      {"{{ x ! }}", "T:1: unexpected \"!\""},
      {"{{ (x] }}", "T:1: unexpected \"]\""},
      {"{% break %}", "T:1: \"break\" outside of a loop"},
      {"{{ 99999999999999999999 }}", "T:1: the number \"99999999999999999999\" is too large"},
      {"{{ 9223372036854775807 + 1 }}", "T:1: an integer leaves 64 bits"},
      {"{{ x.y }}", "T:1: \"x\" is undefined; it has no \"y\""},
      {"\n{{ messages[0].content + none }}", "T:2: \"+\" is not supported between str and None"},
      {"{{ raise_exception('roles must alternate\\n') }}",
       "T:1: the template says: \"roles must alternate\\n\""},
      {std::string("{{ '\xff' }}"), "T:1: byte 4 is not valid UTF-8"},
  };
  for (const auto& [source, want] : cases) EXPECT_EQ(Refused(source), want) << source;
}

TEST(Template, NothingRunsWithoutBound) {
  std::string deep = "1", blocks, chain = "1";
  for (int i = 0; i < 100'000; ++i) deep = "(" + deep;
  for (int i = 0; i < 10'000; ++i) blocks += "{% if 1 %}";
  for (int i = 0; i < 100'000; ++i) chain += "+1";
  std::string minus(100'000, '-'), dots, lists(100'000, '['), conditions, nots;
  for (int i = 0; i < 50'000; ++i) dots += ".a";
  for (int i = 0; i < 20'000; ++i) conditions += "1 if 1 else ";
  for (int i = 0; i < 50'000; ++i) nots += "not ";
  const std::string numbers = "range(100000)";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"{{ " + deep + " }}", "nested too deeply"},
      {"{{ " + lists + " }}", "nested too deeply"},
      {"{{ " + chain + " }}", "nested too deeply"},
      {"{{ " + minus + "1 }}", "nested too deeply"},
      {"{{ x" + dots + " }}", "nested too deeply"},
      {"{{ " + conditions + "1 }}", "nested too deeply"},
      {"{{ " + nots + "1 }}", "nested too deeply"},
      {blocks, "nested too deeply"},
      {std::string(600 << 10, 'x'), "a chat template of 614400 bytes: at most 524288 are read"},
      {"{% for a in " + numbers + " %}{% for b in " + numbers + " %}{% endfor %}{% endfor %}",
       "too many steps"},
      {"{% for a in " + numbers + " %}{{ 'x' * 100000 }}{% endfor %}", "16 MiB of output"},
      {"{% set ns = namespace(x='x' * 1000) %}{% for a in " + numbers +
           " %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
       "at most 16777216 are made"},
      {"{% set ns = namespace(x=[1]) %}{% for a in " + numbers +
           " %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
       "too many steps|MiB"},
      {"{% set ns = namespace(l=[]) %}{% for a in " + numbers +
           " %}{% set ns.l = ns.l + ['x' * 100000 ~ a] %}{% endfor %}",
       "need more than 32 MiB"},
      {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "macros call macros too deeply"},
      {"{% for i in range(100000) %}{% set x = namespace() %}{% endfor %}"
       "{% for i in range(100000) %}{% set x = namespace() %}{% endfor %}",
       "need more than 32 MiB"},
      {"{{ 'a' * 10000000000 }}", "a repetition too long"},
      {"{{ range(1000000) | length }}", "range: more than 100000 numbers"},
      {"{% set ns = namespace(v=1) %}{% for i in range(2000) %}{% set ns.v = [ns.v] %}{% endfor %}"
       "{{ ns.v }}",
       "nested too deeply"},
      {"{% set x = 'a' * 10000000 %}{% for i in range(100000) %}{% set y = 'b' in x %}{% endfor %}",
       "too many steps"},
      {"{% set x = 'a' * 1000000 %}{% for i in range(100000) %}{% set y = x.split('b') %}"
       "{% endfor %}",
       "too many steps"},
  };
  for (const auto& [source, want] : cases) {
    const auto began = std::chrono::steady_clock::now();
    const std::string error = Refused(source);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    const bool found = want == "too many steps|MiB" ? error.find("too many steps") != error.npos ||
                                                          error.find("MiB") != error.npos
                                                    : error.find(want) != error.npos;
    EXPECT_TRUE(found) << source.substr(0, 120) << "\n" << error.substr(0, 300);
    EXPECT_LT(took.count(), 5.0) << source.substr(0, 120);  // a second, but for sanitizers
  }
}

TEST(Template, ValuesThatHoldThemselvesAreFreed) {
  EXPECT_EQ(Rendered("{% set n = namespace() %}{% set n.self = n %}{% set n.list = [n, {'a': n}] %}"
                     "{% for i in [n] %}{% set n.loop = loop %}{{ loop.changed(loop) }}{% endfor %}"
                     "{% macro m() %}{% endmacro %}{% set n.m = m %}ok"),
            "Trueok");
  EXPECT_NE(Refused("{% set n = namespace() %}{% set n.self = n %}{{ n.x.y }}"), "");
}

TEST(Template, GenerationBlocksAreReported) {
  const ChatTemplate chat_template(
      "{% for m in messages %}{{ m.role }}{% generation %}<{{ m.content }}>{% endgeneration %}"
      "{% endfor %}",
      "T");
  const auto out = chat_template.Render(
      Json::parse(R"([{"role": "u", "content": "é"}, {"role": "a", "content": "bc"}])"), {}, {});
  EXPECT_EQ(out.text, "u<é>a<bc>");
  EXPECT_EQ(out.generated, (std::vector<std::pair<std::size_t, std::size_t>>{{1, 5}, {6, 10}}));
}

TEST(Template, WrongChatsAreNamed) {
  const auto refused = [](const char* text) {
    return Refusal([&] {
      const Chat chat = ReadChat(Json::parse(text));
      ChatTemplate("{{ messages[-1].content }}", "T").Render(chat.messages, chat.options, {});
    });
  };
  EXPECT_EQ(refused("[]"), "messages: [] must be a list of messages, not empty");
  EXPECT_EQ(refused("[1]"), "messages[0]: 1 must be an object with \"role\" and \"content\"");
  EXPECT_EQ(refused("3"), "3 must be a list of messages or an object with \"messages\"");
  EXPECT_EQ(refused("{\"messages\": \"x\"}"),
            "messages: \"x\" must be a list of messages, not empty");
  EXPECT_EQ(refused("{\"messages\": [{}], \"tools\": 1}"), "tools: 1 must be a list");
  EXPECT_EQ(refused("{\"messages\": [{}], \"add_generation_prompt\": 1}"),
            "add_generation_prompt: 1 must be true or false");
  EXPECT_EQ(refused("{\"messages\": [{}], \"continue_final_message\": true}"),
            "the last message has no content to continue");
  EXPECT_EQ(refused("{\"messages\": [{\"content\": 18446744073709551615}]}"),
            "T: the integer 18446744073709551615 is too large for a template");
}

TEST(Templates, TheFolderSaysWhichTemplateServes) {
  const TempDir dir;
  EXPECT_EQ(Refusal([&] { ChatTemplates{dir.path()}; }),
            dir.path() +
                ": messages need a chat template: neither chat_template.jinja nor "
                "\"chat_template\" in tokenizer_config.json is there");
  dir.Write(
      "tokenizer_config.json",
      R"({"bos_token": {"content": "<b>"}, "eos_token": "<e>", "chat_template": "{{ bos_token }}one{{ eos_token }}{{ pad_token }}"})");
  EXPECT_EQ(ChatTemplates(dir.path()).Render(Messages(), {}).text, "<b>one<e>");
  dir.Write(
      "tokenizer_config.json",
      R"({"chat_template": [{"name": "default", "template": "plain"}, {"name": "rag", "template": "{{"}, {"name": "tool_use", "template": "{{ tools | length }} tools"}]})");
  ChatOptions tools;
  tools.tools = Json::array({1, 2});
  EXPECT_EQ(ChatTemplates(dir.path()).Render(Messages(), {}).text, "plain");
  EXPECT_EQ(ChatTemplates(dir.path()).Render(Messages(), tools).text, "2 tools");
  dir.Write("chat_template.jinja", "file\n");
  EXPECT_EQ(ChatTemplates(dir.path()).Render(Messages(), tools).text, "file");
  dir.Write("chat_template.jinja", "\n{{ x ");
  EXPECT_EQ(Refusal([&] { ChatTemplates{dir.path()}; }),
            dir.path() + "/chat_template.jinja:2: a tag without end");
}

}  // namespace
}  // namespace temper::engine
