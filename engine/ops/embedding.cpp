#include "engine/ops/embedding.h"

#include <array>
#include <vector>

#include "engine/autograd/autograd.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/gather_rows.h"
#include "engine/runtime/device.h"
#include "kernels/embedding/embedding.h"
#include "kernels/gather_rows/gather_rows.h"

namespace retort {
namespace {

void check_table(const char* name, const Tensor& table, const Tensor& word) {
  RETORT_CHECK(table.rank() == 2 && table.dim(1) == word.dim(1) && table.dtype() == word.dtype() &&
                   table.device() == word.device(),
               "[embedding] expected ", name, " (..., ", word.dim(1), ") of ",
               name_of(word.dtype()), " on ", name_of(word.device()), ", got ", table.shape(),
               " of ", name_of(table.dtype()), " on ", name_of(table.device()));
}

void check_indices(const char* name, const Tensor& t, std::int64_t size, Device device) {
  RETORT_CHECK(t.defined() && t.dtype() == DType::kI32 && t.device() == device && t.rank() <= 1 &&
                   (size < 0 ? t.rank() == 1 && t.numel() >= 1 : t.numel() == size),
               "[embedding] expected ", name, " as i32 ",
               size < 0 ? std::string("(B + 1)") : join("of ", size, " elements"), " on ",
               name_of(device), ", got ",
               t.defined()
                   ? join(t.shape(), " of ", name_of(t.dtype()), " on ", name_of(t.device()))
                   : std::string("an undefined tensor"));
}

void check(const EmbeddingArgs& a) {
  RETORT_CHECK(a.word.defined() && a.word.rank() == 2, "[embedding] expected word (words, C), got ",
               a.word.defined() ? a.word.shape().str() : "an undefined tensor");
  if (a.position.defined()) check_table("position", a.position, a.word);
  if (a.type.defined()) check_table("type", a.type, a.word);
  RETORT_CHECK(a.ids.defined() && a.ids.rank() == 1, "[embedding] expected ids (N)");
  const Device device = a.word.device();
  check_indices("ids", a.ids, a.ids.dim(0), device);
  if (a.starts.defined()) check_indices("starts", a.starts, -1, device);
  if (a.segments.defined()) check_indices("segments", a.segments, a.ids.dim(0), device);
  if (a.invalid_row.defined()) check_indices("invalid_row", a.invalid_row, 1, device);
}

const std::int32_t* pointer(const Tensor& t) {
  return t.defined() && t.numel() > 0 ? t.data<std::int32_t>() : nullptr;
}

struct EmbeddingSaved {
  Tensor indices;           // (3, N)
  std::int64_t first, end;  // the rows that belong to sequences; on CUDA all: others have index -1
  std::array<Shape, 3> shapes;
  std::array<bool, 3> wanted;

  std::vector<Tensor> operator()(const Tensor& dy_given) const {
    const Tensor dy = dy_given.slice(first, end);
    std::vector<Tensor> gradients(3);
    for (std::size_t k = 0; k < 3; ++k) {
      if (!wanted[k]) continue;
      const Shape& shape = shapes[k];
      gradients[k] = gradient_to_add_to(k, shape, dy.dtype(), dy.device());
      if (dy.numel() == 0) continue;
      const std::int32_t* const at =
          indices.data<std::int32_t>() + static_cast<std::int64_t>(k) * indices.dim(1) + first;
      kernels::scatter_rows(context_of(dy.device()),
                            {gradients[k].raw(), dy.raw(), at, end - first, shape[1], shape[0],
                             gradients[k].row_pitch(), dy.row_pitch(), dy.dtype()});
    }
    return gradients;
  }
};

}  // namespace

Tensor embedding(const EmbeddingArgs& a) {
  check(a);
  const Device device = a.word.device();
  const DType dtype = a.word.dtype();
  const std::int64_t rows = a.ids.dim(0), columns = a.word.dim(1);
  const std::array<bool, 3> wanted{needs_grad(a.word), needs_grad(a.position), needs_grad(a.type)};
  const bool recorded = wanted[0] || wanted[1] || wanted[2];
  const Tensor y = Tensor::empty({rows, columns}, dtype, device);
  const Tensor indices = recorded ? Tensor::empty({3, rows}, DType::kI32, device) : Tensor();
  kernels::EmbeddingArgs k{};
  k.y = y.raw();
  k.word = a.word.raw();
  k.ids = pointer(a.ids);
  k.starts = pointer(a.starts);
  k.segments = pointer(a.segments);
  k.rows = rows;
  k.columns = columns;
  k.sequences = a.starts.defined() ? a.starts.dim(0) - 1 : 0;
  k.words = a.word.dim(0);
  k.word_pitch = a.word.row_pitch();
  if (a.position.defined()) {
    k.position = a.position.raw();
    k.positions = a.position.dim(0);
    k.position_pitch = a.position.row_pitch();
  }
  if (a.type.defined()) {
    k.type = a.type.raw();
    k.types = a.type.dim(0);
    k.type_pitch = a.type.row_pitch();
  }
  k.position_offset = a.position_offset;
  k.dtype = dtype;
  k.indices = recorded && rows > 0 ? indices.data<std::int32_t>() : nullptr;
  k.invalid_row = a.invalid_row.defined() ? a.invalid_row.data<std::int32_t>() : nullptr;
  kernels::embedding(context_of(device), k);
  if (!recorded) return y;
  EmbeddingSaved saved{indices, 0, rows, {}, wanted};
  if (device == Device::kCpu && a.starts.defined()) {
    const std::int32_t* const starts = a.starts.data<std::int32_t>();
    saved.first = starts[0], saved.end = starts[k.sequences];
  }
  for (std::size_t i = 0; i < 3; ++i) {
    const Tensor& table = i == 0 ? a.word : i == 1 ? a.position : a.type;
    if (table.defined()) saved.shapes[i] = table.shape();
  }
  return record("embedding", y, {a.word, a.position, a.type}, std::move(saved));
}

Tensor embedding_composed(const EmbeddingArgs& a) {
  check(a);
  const Device device = a.word.device();
  Tensor y = gather_rows(a.word, a.ids);
  if (a.position.defined()) {
    std::vector<std::int32_t> positions(static_cast<std::size_t>(a.ids.dim(0)));
    const std::vector<std::int32_t> starts =
        a.starts.defined()
            ? a.starts.to_vector<std::int32_t>()
            : std::vector<std::int32_t>{0, static_cast<std::int32_t>(positions.size())};
    RETORT_CHECK(
        starts.front() == 0 && starts.back() == static_cast<std::int32_t>(positions.size()),
        "[embedding_composed] expected sequences that hold every row");
    for (std::size_t b = 0; b + 1 < starts.size(); ++b)
      for (std::int32_t n = starts[b]; n < starts[b + 1]; ++n)
        positions[static_cast<std::size_t>(n)] =
            static_cast<std::int32_t>(n - starts[b] + a.position_offset);
    y = add(y, gather_rows(a.position, Tensor::from(positions, a.ids.shape(), device)));
  }
  if (a.type.defined())
    y = add(y, gather_rows(a.type, a.segments.defined()
                                       ? a.segments
                                       : Tensor::zeros(a.ids.shape(), DType::kI32, device)));
  return y;
}

}  // namespace retort
