// A registry: rows by name, built-in ones first, more from outside.
#pragma once
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "kernels/common/check.h"
#include "nn/options.h"

namespace retort::nn {

/// Rows are never removed, so a reference to one stays good. Row has `names`.
///
/// Threads   safe; rows() returns the rows of this moment.
template <class Row>
class Registry {
 public:
  /// `what` goes into messages: "model".
  Registry(const char* what, std::vector<Row> built_in) : what_(what) {
    for (Row& row : built_in) add(std::move(row));
  }

  /// Errors    kUsage for a row without a name, or a name that is taken.
  void add(Row row) {
    const std::lock_guard lock(mutex_);
    RETORT_CHECK(!row.names.empty(), "[register] expected a name for the ", what_);
    for (const std::string& name : row.names)
      RETORT_CHECK(!name.empty() && find_locked(name) == nullptr, "[register] the ", what_, " '",
                   name, "' is there already");
    rows_.push_back(std::make_shared<const Row>(std::move(row)));
  }

  std::vector<std::shared_ptr<const Row>> rows() const {
    const std::lock_guard lock(mutex_);
    return rows_;
  }
  const Row* find(const std::string& name) const {
    const std::lock_guard lock(mutex_);
    return find_locked(name);
  }
  Strings names() const {
    Strings all;
    for (const auto& row : rows()) all.insert(all.end(), row->names.begin(), row->names.end());
    return all;
  }
  /// find(), or Error(kUsage) that lists what there is.
  const Row& at(const std::string& name) const {
    if (const Row* const row = find(name)) return *row;
    std::string known;
    const Strings all = names();
    for (const std::string& n : all) known += (known.empty() ? "" : ", ") + n;
    const std::string near = nearest_word(name, all);
    fail(ErrorCode::kUsage, "[", what_, "] unknown ", what_, " '", name, "'; known: ", known,
         near.empty() ? "" : "; did you mean '" + near + "'?");
  }

 private:
  const Row* find_locked(const std::string& name) const {
    for (const auto& row : rows_)
      for (const std::string& n : row->names)
        if (n == name) return row.get();
    return nullptr;
  }

  const char* what_;
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<const Row>> rows_;
};

}  // namespace retort::nn
