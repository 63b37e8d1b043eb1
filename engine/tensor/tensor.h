// Tensor: a cheap handle on shared storage, with an optional memory of how it was made.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "engine/tensor/shape.h"
#include "kernels/common/context.h"
#include "kernels/common/dtype.h"

namespace retort {

struct Node;  // engine/autograd/autograd.h

/// Memory shared by tensors. Freed when the last of them is gone.
class Storage {
 public:
  Storage(Device device, std::size_t bytes);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  Device device() const { return device_; }

  /// Hands the memory to a new storage; reading through this one then throws, naming `by` (a
  /// literal). For ops that write other values over their input (consume_logits).
  std::shared_ptr<Storage> consume(const char* by);
  const char* consumed_by = nullptr;

  /// The same elements in bf16, of f32 storage that keeps them: see Tensor::keep_bf16_copy.
  std::shared_ptr<Storage> bf16_copy;

 private:
  explicit Storage(Device device) : device_(device) {}
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  Device device_;
};

/// Row-major, outermost dimension first. The elements of the last dimension are adjacent; rows of
/// it start every row_pitch() elements (row_pitch() == dim(-1) is the contiguous case).
///
///   element (i0, ..., ik) at  offset + ((i0 * d1 + i1) * d2 + ...) * row_pitch + ik
///
/// Copying a Tensor copies the handle. An undefined tensor (default constructed) has no storage.
class Tensor {
 public:
  Tensor() = default;

  // -- making one. New memory is uninitialised unless said otherwise. --------------------------
  static Tensor empty(const Shape& shape, DType dtype = DType::kF32, Device device = Device::kCpu);
  /// Rows padded to a multiple of `multiple` elements: for logits of 1,024 classes and more.
  static Tensor empty_pitched(const Shape& shape, std::int64_t multiple, DType dtype = DType::kF32,
                              Device device = Device::kCpu);
  static Tensor zeros(const Shape& shape, DType dtype = DType::kF32, Device device = Device::kCpu);
  static Tensor full(const Shape& shape, double value, DType dtype = DType::kF32,
                     Device device = Device::kCpu);
  /// Copies host values; their count must be shape.numel(). T is double, float, bf16, f16, int64,
  /// int32 or uint8.
  template <class T>
  static Tensor from(std::span<const T> values, const Shape& shape, Device device = Device::kCpu);
  template <class T>
  static Tensor from(const std::vector<T>& values, const Shape& shape,
                     Device device = Device::kCpu) {
    return from(std::span<const T>(values), shape, device);
  }
  static Tensor scalar(double value, DType dtype = DType::kF32, Device device = Device::kCpu) {
    return full({}, value, dtype, device);
  }

  // -- what it is -------------------------------------------------------------------------------
  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  int rank() const { return shape_.rank(); }
  std::int64_t dim(int i) const { return shape_[i]; }
  std::int64_t numel() const { return numel_; }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  std::int64_t row_pitch() const { return row_pitch_; }
  /// Product of all dimensions but the last (1 for a scalar).
  std::int64_t rows() const { return rank() == 0 ? 1 : (dim(-1) == 0 ? 0 : numel_ / dim(-1)); }
  bool is_contiguous() const { return rank() == 0 || row_pitch_ == shape_[-1] || rows() <= 1; }
  std::size_t bytes() const { return static_cast<std::size_t>(numel_) * size_of(dtype_); }
  /// First element. Throws if the content was consumed by an op.
  void* raw() const;
  template <class T>
  T* data() const {
    RETORT_CHECK(dtype_of<T> == dtype_, "[tensor] expected dtype ", name_of(dtype_of<T>), ", got ",
                 name_of(dtype_));
    return static_cast<T*>(raw());
  }
  const std::shared_ptr<Storage>& storage() const { return storage_; }
  std::int64_t storage_offset() const { return offset_; }

  // -- views: share memory, not recorded on the tape (ops/view.h has the differentiable ones) ----
  Tensor view(const Shape& shape) const;                     // contiguous only
  Tensor slice(std::int64_t begin, std::int64_t end) const;  // of the outermost dimension
  /// Of the last dimension: every row keeps its pitch, so with more than one row the view is
  /// contiguous only if it is the whole. Ops that want contiguous rows copy it or say so.
  Tensor slice_columns(std::int64_t begin, std::int64_t end) const;
  Tensor detach() const;  // without its history

  // -- copies: not recorded on the tape ----------------------------------------------------------
  Tensor to(Device device) const;  // the same tensor if it is there already
  Tensor to(DType dtype) const;    // rounds to nearest even
  Tensor clone() const;            // contiguous
  Tensor contiguous() const;       // the same tensor if it is
  /// Overwrites the content with that of `source` (same shape; dtype and device may differ).
  void copy_from(const Tensor& source) const;
  void fill(double value) const;

  // -- a bf16 copy beside f32 content: what products in mixed precision read ---------------------
  //
  // Note [bf16 copies]
  //   The copy belongs to the storage, so every handle and view finds its part of it, at addresses
  //   that stay. It is never stale: whoever writes the content writes the copy too, on the same
  //   stream. copy_from, fill, random fills, add_into and the optimizers do; code that writes
  //   through raw() calls round_bf16_copy() behind it.
  /// From now on this storage keeps such a copy. For the f32 tensor that is its whole storage.
  void keep_bf16_copy() const;
  /// This tensor's elements in the copy; undefined where there is none.
  Tensor bf16_copy() const;
  /// Makes the copy right again after a write through raw(). Nothing where there is none.
  void round_bf16_copy() const;

  // -- reading back: waits for the device ---------------------------------------------------------
  template <class T>
  std::vector<T> to_vector() const;  // row-major, converted from the tensor's own dtype
  double item() const;               // of a tensor with one element

  // -- autograd -----------------------------------------------------------------------------------
  bool requires_grad() const { return autograd_ != nullptr; }
  /// Makes this tensor a leaf whose gradient is kept. Floating dtypes only.
  Tensor& set_requires_grad(bool requires_grad);
  /// The accumulated gradient of a leaf; undefined before the first backward.
  Tensor grad() const;
  /// Shape, dtype and device must be this tensor's.
  void set_grad(const Tensor& gradient) const;
  /// Gradient := 0 (the memory stays, and is cleared only if somebody reads it before backward
  /// writes it); nothing if there is none.
  void zero_grad() const;
  /// Back-propagates from this scalar with gradient 1, or from any tensor with the given gradient.
  void backward() const;
  void backward(const Tensor& gradient) const;

  struct Autograd {
    std::shared_ptr<Node> node;        // null for a leaf
    std::shared_ptr<Tensor> gradient;  // leaf only
    // Leaf only: the gradient is zero so far, whatever its memory holds, unless gradient_is_zeroed:
    // the first contribution is written over it.
    bool gradient_is_fresh = false;
    bool gradient_is_zeroed = false;  // of a fresh one: the memory holds the zeros
    // Contributions that the op whose backward runs has put there itself: see gradient_memory.
    int contributions_in_place = 0;
    /// Clears the memory of a fresh gradient: before others than grad() read it.
    void clear_fresh_gradient();
  };
  const std::shared_ptr<Autograd>& autograd() const { return autograd_; }
  void set_autograd(std::shared_ptr<Autograd> autograd) { autograd_ = std::move(autograd); }

  /// A tensor on existing storage. Checks that it fits.
  static Tensor wrap(std::shared_ptr<Storage> storage, std::int64_t offset, const Shape& shape,
                     DType dtype, std::int64_t row_pitch);

 private:
  void write(const Tensor& source) const;

  std::shared_ptr<Storage> storage_;
  std::shared_ptr<Autograd> autograd_;
  Shape shape_;
  std::int64_t offset_ = 0;     // elements
  std::int64_t row_pitch_ = 0;  // elements
  std::int64_t numel_ = 0;
  DType dtype_ = DType::kF32;
  Device device_ = Device::kCpu;
};

}  // namespace retort
