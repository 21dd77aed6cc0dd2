#include <cstring>
#include <limits>
#include <set>

#include "configs/error.h"
#include "store/open.h"
#include "store/rows.h"
#include "store/trajectories.h"

namespace temper::store {
namespace {

/// The text with each byte that is no UTF-8 replaced by U+FFFD: what JSON can carry.
std::string ToUtf8(std::string_view text) {
  const Json probe = text;
  try {
    (void)probe.dump();
    return std::string(text);
  } catch (const Json::type_error&) {
    // The dump is a quoted, escaped string: reading it back gives the repaired text.
    return Json::parse(probe.dump(-1, ' ', false, Json::error_handler_t::replace))
        .get<std::string>();
  }
}

template <typename T>
Json Array(std::string_view bytes, const std::string& where) {
  Json array = Json::array();
  for (T value : FromBlob<T>(bytes, where)) array.push_back(value);
  return array;
}

Json BlobToJson(std::string_view bytes, const std::string& column) {
  if (column == "ids" || column == "prompt_ids") return Array<std::int32_t>(bytes, column);
  if (column == "logp") return Array<float>(bytes, column);
  if (column == "experts") return Array<std::uint16_t>(bytes, column);
  if (column == "kept") return Array<std::int32_t>(bytes, column);
  if (column == "versions") return Array<std::uint32_t>(bytes, column);
  return Array<std::uint8_t>(bytes, column);
}

Json ValueToJson(sqlite3_stmt* statement, int column) {
  switch (sqlite3_column_type(statement, column)) {
    case SQLITE_INTEGER:
      return sqlite3_column_int64(statement, column);
    case SQLITE_FLOAT:
      return sqlite3_column_double(statement, column);
    case SQLITE_NULL:
      return nullptr;
    default:
      break;
  }
  const auto* data = static_cast<const char*>(sqlite3_column_blob(statement, column));
  const auto size = static_cast<std::size_t>(sqlite3_column_bytes(statement, column));
  const std::string_view bytes = data != nullptr ? std::string_view(data, size) : "";
  if (sqlite3_column_type(statement, column) == SQLITE_TEXT) return ToUtf8(bytes);
  // An alias hides the name; the origin does not.
  const char* origin = sqlite3_column_origin_name(statement, column);
  return BlobToJson(bytes, origin != nullptr ? origin : sqlite3_column_name(statement, column));
}

int Authorize(void* denied, int action, const char* first, const char*, const char*, const char*) {
  static const std::set<std::string> kPragmas = {"table_info",  "table_xinfo",    "table_list",
                                                 "index_list",  "index_info",     "integrity_check",
                                                 "quick_check", "application_id", "user_version"};
  bool allowed = false;
  switch (action) {
    case SQLITE_SELECT:
    case SQLITE_READ:
    case SQLITE_FUNCTION:
    case SQLITE_RECURSIVE:
      allowed = true;
      break;
    case SQLITE_PRAGMA:
      allowed = first != nullptr && kPragmas.count(first) > 0;
      break;
    default:
      break;
  }
  if (allowed) return SQLITE_OK;
  *static_cast<bool*>(denied) = true;
  return SQLITE_DENY;
}

/// Column names, made different where the statement has one twice.
std::vector<std::string> Names(sqlite3_stmt* statement) {
  std::vector<std::string> names;
  std::set<std::string> seen;
  for (int i = 0; i < sqlite3_column_count(statement); ++i) {
    const std::string name = sqlite3_column_name(statement, i);
    std::string unique = name;
    for (int n = 2; !seen.insert(unique).second; ++n) unique = name + ":" + std::to_string(n);
    names.push_back(unique);
  }
  return names;
}

struct Finalize {
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using StatementPtr = std::unique_ptr<sqlite3_stmt, Finalize>;

}  // namespace

struct Reader::State {
  explicit State(const std::string& path) : db(OpenForReading(path)) {
    sqlite3_set_authorizer(db->handle(), Authorize, &denied);
  }
  StatementPtr Prepare(const std::string& sql);
  bool denied = false;  // by the authorizer; SQLite's own code for it varies
  std::unique_ptr<Connection> db;
};

StatementPtr Reader::State::Prepare(const std::string& sql) {
  const std::string where = db->path() + ": query: ";
  const char* rest = nullptr;
  sqlite3_stmt* raw = nullptr;
  if (sql.size() > std::numeric_limits<int>::max() / 2 || sql.find('\0') != std::string::npos) {
    throw UserError(where + "the text is too long or has a zero byte");
  }
  denied = false;
  const int code = sqlite3_prepare_v2(db->handle(), sql.c_str(), -1, &raw, &rest);
  StatementPtr statement(raw);
  if (code != SQLITE_OK) {
    const std::string message = where + sqlite3_errmsg(db->handle());
    if (denied) throw UserError(message + "; one reading statement is allowed");
    if ((code & 0xFF) == SQLITE_ERROR || (code & 0xFF) == SQLITE_TOOBIG) throw UserError(message);
    ThrowSqlite(db->handle(), code, db->path());
  }
  if (statement == nullptr) throw UserError(where + "no statement; write a SELECT");
  // Whatever follows must be blanks, comments or semicolons.
  while (*rest != '\0') {
    sqlite3_stmt* next = nullptr;
    const int trailing = sqlite3_prepare_v2(db->handle(), rest, -1, &next, &rest);
    StatementPtr more(next);
    if (trailing != SQLITE_OK || more != nullptr) {
      throw UserError(where + "more than one statement; one reading statement is allowed");
    }
  }
  if (!sqlite3_stmt_readonly(statement.get()) || sqlite3_column_count(statement.get()) == 0) {
    throw UserError(where + "the statement does not read; one reading statement is allowed");
  }
  return statement;
}

Reader::Reader(const std::string& path) : state_(std::make_unique<State>(path)) {}
Reader::Reader(Reader&&) noexcept = default;
Reader::~Reader() = default;

void Reader::Query(const std::string& sql, const std::function<void(const Json&)>& row) {
  const StatementPtr statement = state_->Prepare(sql);
  sqlite3* db = state_->db->handle();
  const std::vector<std::string> names = Names(statement.get());
  while (true) {
    const int code = sqlite3_step(statement.get());
    if (code == SQLITE_DONE) return;
    if (code != SQLITE_ROW) {
      // Errors while running, e.g. of a function's argument, are the query's fault.
      if ((code & 0xFF) == SQLITE_ERROR) {
        throw UserError(state_->db->path() + ": query: " + sqlite3_errmsg(db));
      }
      ThrowSqlite(db, code, state_->db->path());
    }
    Json object = Json::object();
    for (std::size_t i = 0; i < names.size(); ++i) {
      object[names[i]] = ValueToJson(statement.get(), static_cast<int>(i));
    }
    row(object);
  }
}

}  // namespace temper::store
