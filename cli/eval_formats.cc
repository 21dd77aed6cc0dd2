#include "cli/eval_formats.h"

#include <algorithm>

#include "configs/error.h"
#include "engine/data/rows.h"
#include "reward/extract.h"
#include "reward/function.h"

namespace temper::cli {
namespace {

/// One row read: the question as asked, the answer to it, the worked text of an example.
struct Question {
  std::string text, answer, worked;
};

std::string Text(const Json& row, const char* column, const std::string& where) {
  if (!row.contains(column) || !row[column].is_string()) {
    throw UserError(where + ": column \"" + column + "\" must be a string");
  }
  return row[column].get<std::string>();
}

Question Gsm8k(const Json& row, const std::string& where) {
  const std::string answer = Text(row, "answer", where);
  if (!reward::LastHashes(answer)) throw UserError(where + ": the answer has no \"#### number\"");
  return {"Question: " + Text(row, "question", where) + "\nAnswer:", answer, " " + answer};
}

Question Math(const Json& row, const std::string& where) {
  Question question{"Problem:\n" + Text(row, "problem", where) + "\n\nSolution:\n", "", ""};
  if (row.contains("solution")) question.worked = Text(row, "solution", where);
  if (row.contains("answer")) {
    question.answer = Text(row, "answer", where);
  } else {
    const auto boxed = reward::LastBoxed(question.worked);
    if (!boxed) throw UserError(where + ": neither \"answer\" nor a \\boxed in \"solution\"");
    question.answer = std::string(*boxed);
  }
  return question;
}

Question Choice(const std::string& text, const std::vector<std::string>& choices,
                const std::string& letter, const std::string& ask) {
  Question question{text + "\n", letter, " " + letter};
  for (std::size_t i = 0; i < choices.size(); ++i) {
    question.text += std::string(1, static_cast<char>('A' + i)) + ". " + choices[i] + "\n";
  }
  question.text += ask;
  return question;
}

Question Mmlu(const Json& row, const std::string& where) {
  std::vector<std::string> choices;
  for (const Json& choice : row.value("choices", Json::array())) {
    if (!choice.is_string()) throw UserError(where + ": choices must be texts");
    choices.push_back(choice.get<std::string>());
  }
  if (choices.size() < 2 || choices.size() > 10) {
    throw UserError(where + ": column \"choices\" must be a list of 2 to 10 texts");
  }
  const Json answer = row.value("answer", Json());
  std::string letter;
  if (answer.is_number_unsigned() && answer.get<std::size_t>() < choices.size()) {
    letter = std::string(1, static_cast<char>('A' + answer.get<std::size_t>()));
  } else if (answer.is_string() && answer.get<std::string>().size() == 1) {
    letter = answer.get<std::string>();
  } else {
    throw UserError(where + ": column \"answer\" must be an index of choices or a letter");
  }
  return Choice(Text(row, "question", where), choices, letter, "Answer:");
}

Question Ceval(const Json& row, const std::string& where) {
  std::vector<std::string> choices;
  for (const char* letter : {"A", "B", "C", "D"}) choices.push_back(Text(row, letter, where));
  const std::string answer = Text(row, "answer", where);
  if (answer.size() != 1 || answer[0] < 'A' || answer[0] > 'D') {
    throw UserError(where + ": column \"answer\" must be A, B, C or D");
  }
  return Choice(Text(row, "question", where), choices, answer, "\u7b54\u6848\uff1a");
}

struct Known {
  const char* name;
  Question (*read)(const Json& row, const std::string& where);
  const char* rule;
  const char* options;
  const char* stop;
};

constexpr Known kFormats[] = {
    {"gsm8k", Gsm8k, "gsm8k", R"({"method":"flexible"})", "\nQuestion:"},
    {"math", Math, "math", "", "\nProblem:"},
    {"mmlu", Mmlu, "multiple_choice", "", "\n"},
    {"ceval", Ceval, "multiple_choice", R"({"choices":"ABCD"})", "\n"},
};

const Known& Find(const std::string& name) {
  for (const Known& known : kFormats) {
    if (name == known.name) return known;
  }
  if (name == "humaneval") {
    throw UserError(
        "--format: humaneval is scored by running programs, which Temper does not do; write the "
        "completions with --samples under another reward and run them through its own checker");
  }
  throw UserError("--format: " + configs::Quote(name) +
                  " must be one of gsm8k, math, mmlu, ceval, humaneval");
}

struct Read {
  Json json;
  Question question;
  std::int64_t line = 0;
};

std::vector<Read> ReadAll(const Known& known, const std::string& path) {
  std::vector<Read> rows;
  engine::ForEachJson(path, [&](Json json, const std::string& where, std::int64_t line) {
    if (!json.is_object()) throw UserError(where + ": must be an object");
    Question question = known.read(json, where);
    rows.push_back({std::move(json), std::move(question), line});
  });
  if (rows.empty()) throw UserError(path + ": there is no row");
  return rows;
}

}  // namespace

std::vector<engine::Row> ReadFormatRows(const EvalFormat& format, const std::string& path) {
  const Known& known = Find(format.name);
  std::string examples;
  if (format.shots > 0) {
    if (format.shots_data.empty()) {
      throw UserError("--shots: needs --shots-data, rows of the same format to show");
    }
    const std::vector<Read> shown = ReadAll(known, format.shots_data);
    if (static_cast<int>(shown.size()) < format.shots) {
      throw UserError(format.shots_data + ": " + std::to_string(shown.size()) +
                      " rows, --shots wants " + std::to_string(format.shots));
    }
    for (int i = 0; i < format.shots; ++i) {
      const Question& q = shown[static_cast<std::size_t>(i)].question;
      if (q.worked.empty()) throw UserError(format.shots_data + ": a row has no worked solution");
      examples += q.text + q.worked + "\n\n";
    }
  }
  std::vector<engine::Row> rows;
  for (Read& read : ReadAll(known, path)) {
    engine::Row row;
    row.line = read.line;
    row.prompt = examples + read.question.text;
    row.answer = read.question.answer;
    row.has_answer = true;
    row.json = std::move(read.json);
    rows.push_back(std::move(row));
  }
  return rows;
}

reward::FunctionSpec FormatReward(const std::string& name) {
  const Known& known = Find(name);
  configs::RewardFunction entry;
  entry.rule = known.rule;
  entry.options = known.options;
  return reward::MakeFunction(entry, "");
}

std::string FormatStop(const std::string& name) { return Find(name).stop; }

Json FormatSummary(const EvalFormat& format) {
  const Known& known = Find(format.name);
  const std::string options = known.options;
  return {
      {"format", format.name},
      {"shots", format.shots},
      {"extraction", "rule:" + std::string(known.rule) + (options.empty() ? "" : " " + options)}};
}

}  // namespace temper::cli
