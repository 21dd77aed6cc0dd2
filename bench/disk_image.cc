#include "bench/disk_image.h"

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <stdexcept>

namespace temper::bench {
namespace {

namespace fs = std::filesystem;

}  // namespace

DiskModel::DiskModel(const std::string& folder) : root_(Load(folder)) {}
DiskModel::~DiskModel() = default;

DiskModel::NodePtr DiskModel::Load(const std::string& path) {
  auto node = std::make_shared<Node>();
  if (fs::is_symlink(path)) {
    node->link = fs::read_symlink(path);
  } else if (fs::is_directory(path)) {
    node->folder = true;
    for (const auto& entry : fs::directory_iterator(path))
      node->names[entry.path().filename()] = Load(entry.path());
    node->durable_names = node->names;
  } else {
    std::ifstream in(path, std::ios::binary);
    node->durable.assign(std::istreambuf_iterator<char>(in), {});
  }
  return node;
}

DiskModel::NodePtr DiskModel::Find(const std::string& path) const {
  NodePtr node = root_;
  for (const auto& part : fs::path(path)) {
    if (part == ".") continue;
    const auto found = node->names.find(part);
    if (found == node->names.end()) throw std::logic_error("disk model: no " + path);
    node = found->second;
  }
  return node;
}

DiskModel::Node& DiskModel::Parent(const std::string& path, std::string* name) const {
  *name = fs::path(path).filename();
  return *Find(fs::path(path).parent_path());
}

void DiskModel::Name(const std::string& path, NodePtr node) {
  std::string name;
  Node& parent = Parent(path, &name);
  parent.changes.push_back({nullptr, {{name, node}}});
  if (node) {
    parent.names[name] = std::move(node);
  } else {
    parent.names.erase(name);
  }
}

void DiskModel::Do(const DiskCall& call, std::string* bytes) {
  if (call.kind == DiskCall::kTruncate) return bytes->resize(call.offset);
  if (bytes->size() < call.offset + call.data.size()) bytes->resize(call.offset + call.data.size());
  bytes->replace(call.offset, call.data.size(), call.data);
}

void DiskModel::Apply(const DiskCall& call) {
  switch (call.kind) {
    case DiskCall::kWrite:
    case DiskCall::kTruncate:
      Find(call.path)->changes.push_back({&call, {}});
      break;
    case DiskCall::kCreate:
    case DiskCall::kMakeFolder:
    case DiskCall::kLink: {
      auto node = std::make_shared<Node>();
      node->folder = call.kind == DiskCall::kMakeFolder;
      node->link = call.other;
      Name(call.path, std::move(node));
      break;
    }
    case DiskCall::kUnlink:
    case DiskCall::kRemoveFolder:
      Name(call.path, nullptr);
      break;
    case DiskCall::kRename: {
      std::string from, to;
      Node& parent = Parent(call.path, &from);
      if (&Parent(call.other, &to) != &parent)
        throw std::logic_error("disk model: a rename to another folder: " + call.other);
      const NodePtr node = parent.names.at(from);
      parent.changes.push_back({nullptr, {{from, nullptr}, {to, node}}});
      parent.names.erase(from);
      parent.names[to] = node;
      break;
    }
    case DiskCall::kSync: {
      Node& node = *Find(call.path);
      for (const Change& change : node.changes) {
        if (change.call != nullptr) Do(*change.call, &node.durable);
      }
      node.changes.clear();
      node.durable_names = node.names;
      break;
    }
    case DiskCall::kMark:
      break;
  }
}

std::uint64_t DiskModel::Image(Kept kept, std::uint64_t seed, const std::string& folder) const {
  std::mt19937_64 random(seed);
  std::uint64_t hash = 1469598103934665603u;
  const auto add = [&](const std::string& text) {
    hash = (hash ^ std::hash<std::string>()(text)) * 1099511628211u;
  };
  const auto keep = [&](bool name) {
    switch (kept) {
      case Kept::kNone:
        return false;
      case Kept::kAll:
        return true;
      case Kept::kSome:
        return random() % 2 == 0;
      case Kept::kData:
        return !name;
      case Kept::kNames:
        return name;
    }
    return false;
  };
  const auto bytes_of = [&](const Node& node) {
    std::string bytes = node.durable;
    for (const Change& change : node.changes) {
      if (!keep(/*name=*/false)) continue;
      if (kept != Kept::kSome || change.call->kind != DiskCall::kWrite) {
        Do(*change.call, &bytes);
        continue;
      }
      // Sector by sector; half of the kept writes lose some.
      const bool torn = random() % 2 == 0;
      const DiskCall& write = *change.call;
      for (std::uint64_t at = 0; at < write.data.size();) {
        const std::uint64_t n = std::min<std::uint64_t>(kSector - (write.offset + at) % kSector,
                                                        write.data.size() - at);
        if (!torn || random() % 2 == 0)
          Do({DiskCall::kWrite, {}, write.offset + at, write.data.substr(at, n), {}}, &bytes);
        at += n;
      }
    }
    return bytes;
  };
  const std::function<void(const Node&, const fs::path&)> write = [&](const Node& node,
                                                                      const fs::path& path) {
    add(path.lexically_relative(folder));
    if (!node.link.empty()) {
      add(node.link);
      return fs::create_symlink(node.link, path);
    }
    if (!node.folder) {
      const std::string bytes = bytes_of(node);
      add(bytes);
      std::ofstream(path, std::ios::binary) << bytes;
      return;
    }
    fs::create_directory(path);
    std::map<std::string, NodePtr> names = node.durable_names;
    for (const Change& change : node.changes) {
      if (!keep(/*name=*/true)) continue;
      for (const auto& [name, child] : change.names) {
        if (child) {
          names[name] = child;
        } else {
          names.erase(name);
        }
      }
    }
    for (const auto& [name, child] : names) write(*child, path / name);
  };
  write(*root_, folder);
  return hash;
}

}  // namespace temper::bench
