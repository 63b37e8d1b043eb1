#include "engine/tensor/tensor.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "engine/autograd/autograd.h"
#include "engine/runtime/allocator.h"
#include "engine/runtime/device.h"
#include "kernels/elementwise/elementwise.h"

namespace retort {
namespace {

// Reads element i of host memory as a double, exactly for every type but large i64.
double load(DType dtype, const void* p, std::int64_t i) {
  switch (dtype) {
    case DType::kF64: return static_cast<const double*>(p)[i];
    case DType::kF32: return static_cast<double>(static_cast<const float*>(p)[i]);
    case DType::kBF16: return static_cast<double>(to_float(static_cast<const bf16*>(p)[i]));
    case DType::kF16: return static_cast<double>(to_float(static_cast<const f16*>(p)[i]));
    case DType::kI64: return static_cast<double>(static_cast<const std::int64_t*>(p)[i]);
    case DType::kI32: return static_cast<double>(static_cast<const std::int32_t*>(p)[i]);
    case DType::kU8: return static_cast<double>(static_cast<const std::uint8_t*>(p)[i]);
  }
  return 0;
}

void store(DType dtype, void* p, std::int64_t i, double value) {
  switch (dtype) {
    case DType::kF64: static_cast<double*>(p)[i] = value; return;
    case DType::kF32: static_cast<float*>(p)[i] = static_cast<float>(value); return;
    case DType::kBF16: static_cast<bf16*>(p)[i] = to_bf16(static_cast<float>(value)); return;
    case DType::kF16: static_cast<f16*>(p)[i] = to_f16(static_cast<float>(value)); return;
    case DType::kI64: static_cast<std::int64_t*>(p)[i] = static_cast<std::int64_t>(value); return;
    case DType::kI32: static_cast<std::int32_t*>(p)[i] = static_cast<std::int32_t>(value); return;
    case DType::kU8: static_cast<std::uint8_t*>(p)[i] = static_cast<std::uint8_t>(value); return;
  }
}

std::size_t bytes_of(const Shape& shape, std::int64_t elements, DType dtype) {
  std::int64_t bytes = 0;
  RETORT_CHECK(!__builtin_mul_overflow(elements, static_cast<std::int64_t>(size_of(dtype)), &bytes),
               "[tensor] ", shape, " of ", name_of(dtype), " has too many bytes");
  return static_cast<std::size_t>(bytes);
}

}  // namespace

Storage::Storage(Device device, std::size_t bytes)
    : data_(allocate(device, bytes)), bytes_(bytes), device_(device) {}
Storage::~Storage() {
  if (data_ != nullptr) release(device_, data_);
}

std::shared_ptr<Storage> Storage::consume(const char* by) {
  std::shared_ptr<Storage> heir(new Storage(device_));
  heir->data_ = std::exchange(data_, nullptr);
  heir->bytes_ = std::exchange(bytes_, 0);
  consumed_by = by;
  bf16_copy.reset();
  return heir;
}

Tensor Tensor::wrap(std::shared_ptr<Storage> storage, std::int64_t offset, const Shape& shape,
                    DType dtype, std::int64_t row_pitch) {
  RETORT_CHECK(storage != nullptr, "[tensor] expected a storage, got none");
  Tensor t;
  t.numel_ = shape.numel();
  t.shape_ = shape;
  t.dtype_ = dtype;
  t.device_ = storage->device();
  t.offset_ = offset;
  t.row_pitch_ = row_pitch;
  const std::int64_t width = shape.rank() == 0 ? 1 : shape[-1];
  const std::int64_t rows = width == 0 ? 0 : t.numel_ / width;
  RETORT_CHECK(rows <= 1 || row_pitch >= width, "[tensor] expected a row pitch of at least ", width,
               ", got ", row_pitch);
  std::int64_t span = 0, last = offset;  // elements, from the first one's to behind the last one's
  const bool countable = t.numel_ == 0 || (!__builtin_mul_overflow(rows - 1, row_pitch, &span) &&
                                           !__builtin_add_overflow(span, width, &span) &&
                                           !__builtin_add_overflow(offset, span, &last));
  RETORT_CHECK(offset >= 0 && countable &&
                   static_cast<std::size_t>(last) <= storage->bytes() / size_of(dtype),
               "[tensor] a tensor ", shape, " of ", name_of(dtype), " at offset ", offset,
               " does not fit its storage of ", storage->bytes(), " bytes");
  t.storage_ = std::move(storage);
  return t;
}

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  const std::int64_t width = shape.rank() == 0 ? 1 : shape[-1];
  return wrap(std::make_shared<Storage>(device, bytes_of(shape, shape.numel(), dtype)), 0, shape,
              dtype, width);
}

Tensor Tensor::empty_pitched(const Shape& shape, std::int64_t multiple, DType dtype,
                             Device device) {
  RETORT_CHECK(shape.rank() >= 1 && multiple >= 1,
               "[empty_pitched] expected rank >= 1 and multiple >= 1, got ", shape, ", ", multiple);
  const std::int64_t width = shape[-1], over = width % multiple;
  const std::int64_t rows = width == 0 ? 0 : shape.numel() / width;
  std::int64_t pitch = width, elements = 0;
  RETORT_CHECK((over == 0 || !__builtin_add_overflow(width, multiple - over, &pitch)) &&
                   !__builtin_mul_overflow(rows, pitch, &elements),
               "[empty_pitched] ", shape, " in rows of a multiple of ", multiple,
               " has too many elements");
  return wrap(std::make_shared<Storage>(device, bytes_of(shape, elements, dtype)), 0, shape, dtype,
              pitch);
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  t.fill(0);
  return t;
}

Tensor Tensor::full(const Shape& shape, double value, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  t.fill(value);
  return t;
}

template <class T>
Tensor Tensor::from(std::span<const T> values, const Shape& shape, Device device) {
  RETORT_CHECK(static_cast<std::int64_t>(values.size()) == shape.numel(), "[tensor] expected ",
               shape.numel(), " values for ", shape, ", got ", values.size());
  Tensor t = empty(shape, dtype_of<T>, device);
  copy_bytes(t.raw(), device, values.data(), Device::kCpu, values.size_bytes());
  return t;
}

void* Tensor::raw() const {
  RETORT_CHECK(defined(), "[tensor] expected a defined tensor, got an empty handle");
  RETORT_CHECK(storage_->consumed_by == nullptr,
               "[tensor] this tensor's content was overwritten by ", storage_->consumed_by);
  return static_cast<char*>(storage_->data()) + static_cast<std::size_t>(offset_) * size_of(dtype_);
}

Tensor Tensor::view(const Shape& shape) const {
  RETORT_CHECK(defined(), "[view] expected a defined tensor, got an empty handle");
  RETORT_CHECK(is_contiguous(), "[view] expected a contiguous tensor, got ", shape_,
               " with row pitch ", row_pitch_);
  RETORT_CHECK(shape.numel() == numel_, "[view] expected ", numel_, " elements, got ", shape);
  return wrap(storage_, offset_, shape, dtype_, shape.rank() == 0 ? 1 : shape[-1]);
}

Tensor Tensor::slice(std::int64_t begin, std::int64_t end) const {
  RETORT_CHECK(rank() >= 1 && 0 <= begin && begin <= end && end <= dim(0),
               "[slice] expected 0 <= begin <= end <= ", rank() ? dim(0) : 0, ", got ", begin, ", ",
               end);
  Shape shape{end - begin};
  for (int i = 1; i < rank(); ++i) shape.push_back(dim(i));
  const std::int64_t rows_each = dim(0) == 0 ? 0 : rows() / dim(0);
  const std::int64_t step = rank() == 1 ? 1 : rows_each * row_pitch_;
  return wrap(storage_, offset_ + begin * step, shape, dtype_,
              rank() == 1 ? end - begin : row_pitch_);
}

Tensor Tensor::slice_columns(std::int64_t begin, std::int64_t end) const {
  RETORT_CHECK(rank() >= 1 && 0 <= begin && begin <= end && end <= dim(-1),
               "[slice_columns] expected 0 <= begin <= end <= ", rank() ? dim(-1) : 0, ", got ",
               begin, ", ", end);
  Shape shape(std::span(shape_.begin(), shape_.end() - 1));
  shape.push_back(end - begin);
  // Without rows there is nowhere to begin but at the start.
  return wrap(storage_, numel_ == 0 ? offset_ : offset_ + begin, shape, dtype_, row_pitch_);
}

Tensor Tensor::detach() const {
  Tensor t = *this;
  t.autograd_.reset();
  return t;
}

Tensor Tensor::to(Device device) const {
  if (device == device_) return *this;
  const Tensor source = contiguous();
  Tensor t = empty(shape_, dtype_, device);
  copy_bytes(t.raw(), device, source.raw(), device_, bytes());
  return t;
}

Tensor Tensor::to(DType dtype) const {
  if (dtype == dtype_) return *this;
  Tensor t = empty(shape_, dtype, device_);
  t.copy_from(*this);
  return t;
}

Tensor Tensor::clone() const {
  Tensor t = empty(shape_, dtype_, device_);
  t.copy_from(*this);
  return t;
}

Tensor Tensor::contiguous() const { return is_contiguous() ? *this : clone(); }

void Tensor::copy_from(const Tensor& source) const {
  RETORT_CHECK(source.shape() == shape_, "[copy_from] expected ", shape_, ", got ", source.shape());
  if (numel_ == 0) return;
  write(source);
  round_bf16_copy();
}

void Tensor::write(const Tensor& source) const {
  if (source.dtype() == dtype_ && is_contiguous() && source.is_contiguous()) {
    copy_bytes(raw(), device_, source.raw(), source.device(), bytes());
    return;
  }
  if (source.device() == device_) {
    kernels::cast(context_of(device_), {raw(), source.raw(), dtype_, source.dtype(), rows(),
                                        rank() == 0 ? 1 : dim(-1), row_pitch_, source.row_pitch()});
    return;
  }
  // To another device: convert and pack where the source is, move, unpack here.
  const Tensor packed = source.to(dtype_).contiguous();
  if (is_contiguous()) {
    copy_bytes(raw(), device_, packed.raw(), packed.device(), bytes());
  } else {
    write(packed.to(device_));
  }
}

void Tensor::fill(double value) const {
  if (numel_ == 0) return;
  if (value != 0 || std::signbit(value) || !is_contiguous()) {
    kernels::fill(context_of(device_),
                  {raw(), value, dtype_, rows(), rank() == 0 ? 1 : dim(-1), row_pitch_});
  } else if (device_ == Device::kCpu) {
    std::memset(raw(), 0, bytes());
  } else {
    const Status status = cuda_runtime.fill(raw(), 0, bytes(), context_of(device_).stream);
    RETORT_CHECK_AS(kDevice, status.code == ErrorCode::kOk, "[fill] ", status.message);
  }
  round_bf16_copy();
}

void Tensor::keep_bf16_copy() const {
  RETORT_CHECK(defined() && dtype_ == DType::kF32 && storage_->bytes() == bytes(),
               "[keep_bf16_copy] expected an f32 tensor that is its whole storage");
  if (!storage_->bf16_copy)
    storage_->bf16_copy =
        std::make_shared<Storage>(device_, static_cast<std::size_t>(numel_) * sizeof(bf16));
  round_bf16_copy();
}

Tensor Tensor::bf16_copy() const {
  if (!defined() || dtype_ != DType::kF32 || !storage_->bf16_copy) return Tensor();
  return wrap(storage_->bf16_copy, offset_, shape_, DType::kBF16, row_pitch_);
}

void Tensor::round_bf16_copy() const {
  const Tensor copy = bf16_copy();
  if (copy.defined()) copy.write(*this);
}

template <class T>
std::vector<T> Tensor::to_vector() const {
  const Tensor host = (device_ == Device::kCpu ? *this : to(Device::kCpu)).contiguous();
  const auto n = static_cast<std::size_t>(numel_);
  std::vector<T> values(n);
  if (n == 0) return values;
  const void* const from = host.raw();
  if (dtype_of<T> == dtype_) {
    std::memcpy(values.data(), from, n * sizeof(T));
  } else if (!is_floating(dtype_) && !is_floating(dtype_of<T>)) {
    for (std::size_t i = 0; i < n; ++i) {  // not through double: i64 stays exact
      const auto k = static_cast<std::int64_t>(i);
      const std::int64_t v = dtype_ == DType::kI64   ? static_cast<const std::int64_t*>(from)[i]
                             : dtype_ == DType::kI32 ? static_cast<const std::int32_t*>(from)[i]
                                                     : static_cast<const std::uint8_t*>(from)[i];
      if constexpr (std::is_integral_v<T>)
        values[i] = static_cast<T>(v);
      else
        store(dtype_of<T>, values.data(), k, static_cast<double>(v));
    }
  } else {
    for (std::size_t i = 0; i < n; ++i)
      store(dtype_of<T>, values.data(), static_cast<std::int64_t>(i),
            load(dtype_, from, static_cast<std::int64_t>(i)));
  }
  return values;
}

double Tensor::item() const {
  RETORT_CHECK(numel_ == 1, "[item] expected one element, got ", shape_);
  return to_vector<double>()[0];
}

Tensor& Tensor::set_requires_grad(bool requires_grad) {
  RETORT_CHECK(!requires_grad || is_floating(dtype_),
               "[set_requires_grad] expected a floating dtype, got ", name_of(dtype_));
  RETORT_CHECK(!autograd_ || !autograd_->node,
               "[set_requires_grad] expected a leaf, got the result of an op");
  if (requires_grad && !autograd_) autograd_ = std::make_shared<Autograd>();
  if (!requires_grad) autograd_.reset();
  return *this;
}

void Tensor::Autograd::clear_fresh_gradient() {
  if (!gradient || !gradient_is_fresh || gradient_is_zeroed) return;
  gradient->fill(0);
  gradient_is_zeroed = true;
}

Tensor Tensor::grad() const {
  if (!autograd_ || !autograd_->gradient) return Tensor();
  autograd_->clear_fresh_gradient();
  return *autograd_->gradient;
}

void Tensor::set_grad(const Tensor& gradient) const {
  RETORT_CHECK(autograd_ && !autograd_->node,
               "[set_grad] expected a leaf that requires a gradient");
  check_gradient("set_grad", *this, gradient);
  autograd_->gradient = std::make_shared<Tensor>(gradient.detach());
  autograd_->gradient_is_fresh = false;
  autograd_->contributions_in_place = 0;
}

void Tensor::zero_grad() const {
  if (!autograd_ || !autograd_->gradient) return;
  autograd_->gradient_is_fresh = true;
  autograd_->gradient_is_zeroed = false;
  autograd_->contributions_in_place = 0;  // of a backward that threw
}

#define RETORT_INSTANTIATE(T)                                                \
  template Tensor Tensor::from<T>(std::span<const T>, const Shape&, Device); \
  template std::vector<T> Tensor::to_vector<T>() const;
RETORT_INSTANTIATE(double)
RETORT_INSTANTIATE(float)
RETORT_INSTANTIATE(bf16)
RETORT_INSTANTIATE(f16)
RETORT_INSTANTIATE(std::int64_t)
RETORT_INSTANTIATE(std::int32_t)
RETORT_INSTANTIATE(std::uint8_t)
#undef RETORT_INSTANTIATE

}  // namespace retort
