// Blocks of memory cut from segments and joined again when they are free.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <utility>

namespace retort {

/// Where a heap's segments come from.
class SegmentSource {
 public:
  virtual ~SegmentSource() = default;
  /// At least `least` bytes, aligned to 256, or null; `size` is what it really is.
  virtual void* get(std::size_t least, std::size_t* size) = 0;
  virtual void put(void* segment, std::size_t size) noexcept = 0;
  /// True if a segment's pages take memory only once they are written.
  virtual bool lazy() const = 0;
  /// Takes the memory of pages back that nobody uses; their addresses stay. Lazy sources only.
  virtual void forget(void* begin, std::size_t size) noexcept = 0;
};

/// The smallest free block that fits, of equals the lowest, cut to size: so that what one tensor
/// leaves serves several smaller ones, and neighbours that are free serve a larger one. Memory that
/// was never used is taken last, and where a free block lies before it only what is missing.
///
/// release() and trim() ask for no memory. Where allocate() throws std::bad_alloc, nothing
/// happened. Equal requests from an equal state get equal blocks. Not thread-safe: its owner locks.
/// Source    best fit with joining: Knuth, The Art of Computer Programming 1, section 2.5.
class Heap {
 public:
  /// cuts false: every block is a segment, kept for requests of more than half its size; a tool
  /// that watches the ends of allocations then sees the ends of blocks.
  explicit Heap(SegmentSource& source, bool cuts = true) : source_(source), cuts_(cuts) {}
  ~Heap();
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;

  static constexpr std::size_t kUnit = 512;  // blocks are multiples of it

  /// A block from the memory that is there; null if none fits.
  void* take(std::size_t bytes);
  /// The same, and asks the source if need be; null if it has none.
  void* allocate(std::size_t bytes);
  /// `block` came from this heap.
  void release(void* block) noexcept;
  /// Gives the source what nobody uses: whole segments, and the pages of free blocks.
  void trim() noexcept;

  /// Bytes of pages that were used and not given back.
  std::size_t resident_bytes() const { return resident_; }
  /// How often that grew: constant in a steady state.
  std::uint64_t growths() const { return growths_; }

 private:
  using Sizes = std::set<std::pair<std::size_t, char*>>;
  struct Block {
    std::size_t size;
    bool free, fresh;  // fresh: its pages were never used, or were given back
    bool first;        // of its segment: never joined with what lies before
    // Its entry in a list while it is in none: got with the block, so that to give memory back
    // never asks for any.
    Sizes::node_type entry;
  };
  using Blocks = std::map<char*, Block>;

  static Sizes::node_type new_entry();
  void list(Blocks::iterator at) noexcept;
  void unlist(Blocks::iterator at) noexcept;
  Sizes& sizes(Blocks::iterator at) { return at->second.fresh ? fresh_ : free_; }
  // The free, used block right before `at` in its segment, or end().
  Blocks::iterator used_before(Blocks::iterator at);
  void* cut(Blocks::iterator at, std::size_t size);
  void* extend(std::size_t size);
  void* from_source(std::size_t size);
  void forget_free(Blocks::iterator begin, Blocks::iterator end) noexcept;

  SegmentSource& source_;
  bool cuts_;
  Blocks blocks_;       // all of them, by address
  Sizes free_, fresh_;  // the free ones
  std::size_t resident_ = 0;
  std::uint64_t growths_ = 0;
};

}  // namespace retort
