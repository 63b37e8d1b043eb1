#include "engine/runtime/heap.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace retort {
namespace {

std::size_t size_of_block(std::size_t bytes) {
  return std::max<std::size_t>((bytes + Heap::kUnit - 1) / Heap::kUnit, 1) * Heap::kUnit;
}

}  // namespace

Heap::~Heap() {
  for (auto at = blocks_.begin(); at != blocks_.end();) {
    char* const segment = at->first;
    std::size_t size = 0;
    do size += at++->second.size;
    while (at != blocks_.end() && !at->second.first);
    source_.put(segment, size);
  }
}

Heap::Sizes::node_type Heap::new_entry() {
  Sizes one;
  one.emplace(0, nullptr);
  return one.extract(one.begin());
}

void Heap::list(Blocks::iterator at) noexcept {
  Sizes::node_type& entry = at->second.entry;
  entry.value() = {at->second.size, at->first};
  sizes(at).insert(std::move(entry));
}

void Heap::unlist(Blocks::iterator at) noexcept {
  at->second.entry = sizes(at).extract({at->second.size, at->first});
}

Heap::Blocks::iterator Heap::used_before(Blocks::iterator at) {
  if (at->second.first) return blocks_.end();
  const auto before = std::prev(at);
  return before->second.free && !before->second.fresh ? before : blocks_.end();
}

// Takes the first `size` bytes of a block that is listed; the rest stays free.
void* Heap::cut(Blocks::iterator at, std::size_t size) {
  Block& block = at->second;
  if (cuts_ && block.size > size) {
    const auto rest =
        blocks_.emplace_hint(std::next(at), at->first + size,
                             Block{block.size - size, true, block.fresh, false, new_entry()});
    unlist(at);
    block.size = size;
    list(rest);
  } else {
    unlist(at);
  }
  if (block.fresh) {
    block.fresh = false;
    resident_ += block.size;
    ++growths_;
  }
  block.free = false;
  return at->first;
}

// From pages without memory: the block before which most of the size is there already.
void* Heap::extend(std::size_t size) {
  auto best = blocks_.end(), best_before = blocks_.end();
  std::size_t most = 0;
  for (const auto& [bytes, pointer] : fresh_) {
    const auto at = blocks_.find(pointer), before = used_before(at);
    const std::size_t there = before == blocks_.end() ? 0 : before->second.size;
    if (bytes + there < size || (best != blocks_.end() && there <= most)) continue;
    best = at, best_before = before, most = there;
  }
  if (best == blocks_.end()) return nullptr;
  if (best_before == blocks_.end()) return cut(best, size);
  unlist(best);
  unlist(best_before);
  const std::size_t missing = size - most, rest = best->second.size - missing;
  auto moved = blocks_.extract(best);
  if (rest > 0) {
    moved.key() += missing;
    moved.mapped().size = rest;
    list(blocks_.insert(std::move(moved)).position);
  }
  best_before->second.size = size;
  best_before->second.free = false;
  resident_ += missing;
  ++growths_;
  return best_before->first;
}

void* Heap::take(std::size_t bytes) {
  const std::size_t size = size_of_block(bytes);
  const auto found = free_.lower_bound({size, nullptr});
  if (found == free_.end() || (!cuts_ && found->first / 2 >= size)) return nullptr;
  return cut(blocks_.find(found->second), size);
}

void* Heap::allocate(std::size_t bytes) {
  void* block = take(bytes);
  const std::size_t size = size_of_block(bytes);
  if (block == nullptr) block = extend(size);
  if (block == nullptr) block = from_source(size);
  return block;
}

void* Heap::from_source(std::size_t size) {
  std::size_t got = 0;
  char* const segment = static_cast<char*>(source_.get(size, &got));
  if (segment == nullptr) return nullptr;
  const bool lazy = source_.lazy();
  try {
    list(blocks_.emplace(segment, Block{got, true, lazy, true, new_entry()}).first);
  } catch (...) {
    source_.put(segment, got);
    throw;
  }
  if (!lazy) {
    resident_ += got;
    ++growths_;
  }
  return cut(blocks_.find(segment), size);
}

void Heap::release(void* pointer) noexcept {
  auto at = blocks_.find(static_cast<char*>(pointer));
  if (at == blocks_.end()) return;
  at->second.free = true;
  const auto join = [&](Blocks::iterator first, Blocks::iterator second) {
    first->second.size += second->second.size;
    blocks_.erase(second);
  };
  const auto after = std::next(at);
  if (after != blocks_.end() && !after->second.first && after->second.free &&
      !after->second.fresh) {
    unlist(after);
    join(at, after);
  }
  if (const auto before = used_before(at); before != blocks_.end()) {
    unlist(before);
    join(before, at);
    at = before;
  }
  list(at);
}

void Heap::trim() noexcept {
  for (auto at = blocks_.begin(); at != blocks_.end();) {
    const auto begin = at;
    bool whole = true;
    std::size_t size = 0;
    do {
      whole = whole && at->second.free;
      size += at++->second.size;
    } while (at != blocks_.end() && !at->second.first);
    if (whole) {
      for (auto block = begin; block != at; ++block) {
        if (!block->second.fresh) resident_ -= block->second.size;
        unlist(block);
      }
      char* const segment = begin->first;
      blocks_.erase(begin, at);
      source_.put(segment, size);
    } else if (source_.lazy()) {
      forget_free(begin, at);
    }
  }
}

// The free blocks of a segment become fresh, and neighbours among them one.
void Heap::forget_free(Blocks::iterator begin, Blocks::iterator end) noexcept {
  for (auto at = begin; at != end;) {
    if (!at->second.free) {
      ++at;
      continue;
    }
    unlist(at);
    if (!at->second.fresh) {
      source_.forget(at->first, at->second.size);
      resident_ -= at->second.size;
      at->second.fresh = true;
    }
    if (at != begin && std::prev(at)->second.free) {
      const auto before = std::prev(at);
      unlist(before);
      before->second.size += at->second.size;
      blocks_.erase(at);
      at = before;
    }
    list(at);
    ++at;
  }
}

}  // namespace retort
