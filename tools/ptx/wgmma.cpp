// wgmma: products of a warp group from matrices in shared memory, under way until they are waited
// for. Its four warps come to each instruction together (Machine::together); each computes its own
// 16 rows.
#include <algorithm>

#include "tools/ptx/instructions.h"

namespace retort::ptx {
namespace {
float bf16(u32 bits) { return std::bit_cast<float>(bits << 16); }
float as_float(u32 bits) { return std::bit_cast<float>(bits); }
u32 canonical(float v) { return v == v ? std::bit_cast<u32>(v) : 0x7fff'ffffu; }

// A matrix descriptor: start, leading and stride offsets in units of 16 bytes, base offset,
// swizzle. Of the layouts the one with 128-byte swizzle: atoms of 8 rows of 128 bytes; bits 4..6 of
// an address are xored with bits 7..9.
struct Matrix {
  u32 start, leading, stride;
  bool across;  // the rows of the product run along the 128 bytes ("MN-major"), else its depth does
  Matrix(Warp& w, u64 d, bool transposed)
      : start(static_cast<u32>(d & 0x3fff) << 4),
        leading(static_cast<u32>(d >> 16 & 0x3fff) << 4),
        stride(static_cast<u32>(d >> 32 & 0x3fff) << 4),
        across(transposed) {
    if (d >> 62 != 1)
      fail(w, 0, "wgmma descriptor " + hex(d) + ": only the 128-byte swizzle is implemented");
    if (d >> 49 & 7)
      fail(w, 0, "wgmma descriptor " + hex(d) + ": a base offset is not implemented");
  }
  u32 at(u32 row, u32 k) const {
    const u32 linear =
        across ? start + row % 64 * 2 + row / 64 * leading + k % 8 * 128 + k / 8 * stride
               : start + row % 8 * 128 + row / 8 * stride + k * 2;
    return linear ^ (linear >> 3 & 0x70);
  }
};
void read_matrix(Warp& w, const Matrix& x, u32 first, u32 rows, bool by_group, float (*out)[16]) {
  Block& block = *w.block;
  const u32 rank = block.rank << 24;
  for (u32 r = 0; r < rows; ++r)
    for (u32 k = 0; k < 16; ++k) {
      const u32 at = x.at(first + r, k);
      u16 v;
      std::memcpy(&v, shared_pointer(w, 0, rank | at, 2), 2);
      if (w.machine->options.checks) check_async_read(w, block, at - kSharedBase, 2, by_group);
      out[r][k] = bf16(v);
    }
}
constexpr u32 kPoison = 0x7fad'beef;

// B, turned: read by the first warp of a group, for all.
const float* factor(Warp& w, u64 descriptor, bool across, u32 columns) {
  WarpGroup& g = w.block->groups[w.index / 4];
  for (u32 k = 0; k < g.used; ++k)
    if (const Factor& f = g.factors[k];
        f.descriptor == descriptor && f.across == across && f.columns == columns)
      return f.values.data();
  if (g.used == g.factors.size()) g.factors.emplace_back();
  Factor& f = g.factors[g.used++];
  f.descriptor = descriptor, f.across = across, f.columns = columns;
  f.values.resize(std::size_t{16} * columns);
  static thread_local float rows[256][16];
  read_matrix(w, Matrix(w, descriptor, across), 0, columns, true, rows);
  for (u32 n = 0; n < columns; ++n)
    for (u32 k = 0; k < 16; ++k) f.values[k * columns + n] = rows[n][k];
  return f.values.data();
}

void multiply(Warp& w, const WgmmaRecord& record, float* acc) {  // acc[e][lane]
  const Inst& i = *record.inst;
  const u32 columns = 2 * i.list_size;
  float a[16][16];
  read_matrix(w, Matrix(w, record.a, i.flag), w.index % 4 * 16, 16, false, a);
  const float* const b = factor(w, record.b, i.flag2, columns);
  for (u32 row = 0; row < 16; ++row) {
    float sum[256] = {};
    for (u32 k = 0; k < 16; ++k)
      for (u32 n = 0; n < columns; ++n) sum[n] += a[row][k] * b[k * columns + n];
    // D: row 16 warp + lane / 4 + 8 h, column 8 j + 2 (lane % 4) + e in register 4 j + 2 h + e
    for (u32 n = 0; n < columns; ++n) {
      const u32 lane = row % 8 * 4 + n % 8 / 2, e = n / 8 * 4 + row / 8 * 2 + n % 2;
      float& d = acc[e * 32 + lane];
      d = record.add ? d + sum[n] : sum[n];
    }
  }
}
// What a product finds in its accumulators was there at the fence, in these registers or in others:
// nvcc's text copies registers that are one on the chip. (So a copy of the wrong register passes.)
void check_at_fence(Warp& w, const Inst& i) {
  for (u32 e = 0; e < i.list_size; ++e) {
    const u32 slot = list_of(w, i)[e];
    const auto held_by = [&](std::size_t at) {
      return std::equal(w.r + slot, w.r + slot + 32, w.at_fence.data() + at);
    };
    if (held_by(slot)) continue;
    std::size_t at = 0;
    while (at < w.at_fence.size() && !held_by(at)) at += 32;
    if (at == w.at_fence.size())
      fail(w, 0, "an accumulator of wgmma was computed after the wgmma.fence");
  }
}
void wgmma(Warp& w, const Inst& i, u32) {
  WgmmaRecord record{w.wgmma_committed, &i, 0, 0, false};
  for (u32 l = 0; l < 32; ++l) {
    u64 a, b;
    std::memcpy(&a, w.r + i.a + 2 * l, 8);
    std::memcpy(&b, w.r + i.b + 2 * l, 8);
    if (l == 0) record.a = a, record.b = b;
    if (a != record.a || b != record.b) fail(w, l, "wgmma: descriptors differ within the warp");
  }
  record.add = w.p[i.c] & 1;
  if (w.p[i.c] != 0 && w.p[i.c] != ~0u) fail(w, 0, "wgmma: scale-d differs within the warp");
  if (w.index % 4 != 0) {
    const WgmmaRecord& first = w.block->warps[w.index / 4 * 4].wgmmas.back();
    if (first.a != record.a || first.b != record.b || first.add != record.add)
      fail(w, 0, "wgmma: descriptors or scale-d differ within the warp group");
  }
  Accumulators& s = w.accumulators[list_of(w, i)[0]];
  if (s.under_way == 0) {
    // wgmma.fence orders what the program did with the accumulators; products in a row need none
    // between them
    if (!w.wgmma_fenced)
      fail(w, 0, "wgmma without a wgmma.fence after the accumulators were touched");
    if (w.machine->options.checks) check_at_fence(w, i);
    s.slots.assign(list_of(w, i), list_of(w, i) + i.list_size);
    s.values.resize(i.list_size * 32);
    for (u32 e = 0; e < i.list_size; ++e)
      for (u32 l = 0; l < 32; ++l) s.values[e * 32 + l] = as_float(w.r[s.slots[e] + l]);
  }
  ++s.under_way;
  w.wgmmas.push_back(record);
  if (w.machine->options.late) {
    for (u32 e = 0; e < i.list_size; ++e) std::fill_n(w.r + s.slots[e], 32, kPoison);
  } else {
    multiply(w, record, s.values.data());
    for (u32 e = 0; e < i.list_size; ++e)
      for (u32 l = 0; l < 32; ++l) w.r[s.slots[e] + l] = canonical(s.values[e * 32 + l]);
  }
}
}  // namespace

void complete_wgmma(Warp& w, u32 newest) {
  const bool late = w.machine->options.late;
  if (newest == 0) w.wgmma_fenced = false;
  std::size_t done = 0;
  for (; done < w.wgmmas.size() && w.wgmmas[done].group + newest < w.wgmma_committed; ++done) {
    const WgmmaRecord& record = w.wgmmas[done];
    const auto it = w.accumulators.find(list_of(w, *record.inst)[0]);
    Accumulators& s = it->second;
    if (late) multiply(w, record, s.values.data());
    if (--s.under_way > 0) continue;
    if (late)
      for (std::size_t e = 0; e < s.slots.size(); ++e)
        for (u32 l = 0; l < 32; ++l) {
          u32& r = w.r[s.slots[e] + l];
          if (r != kPoison)
            fail(w, l, "an accumulator of wgmma was written while the product was under way");
          r = canonical(s.values[e * 32 + l]);
        }
    w.accumulators.erase(it);
  }
  w.wgmmas.erase(w.wgmmas.begin(), w.wgmmas.begin() + static_cast<std::ptrdiff_t>(done));
}

bool lower_wgmma(Lowering& l, Inst& i) {
  const Statement& s = l.s;
  const std::string& op = s.op[0];
  const std::string full = l.full();
  if (op == "wgmma") {
    i.flow = Flow::kWarpGroup;
    i.aligned = true;
    if (full == "wgmma.fence.sync.aligned") {
      i.fn = [](Warp& w, const Inst&, u32) {
        w.wgmma_fenced = true;
        if (w.machine->options.checks) w.at_fence.assign(w.r, w.r + w.machine->f->register_slots);
      };
      return true;
    }
    if (full == "wgmma.commit_group.sync.aligned") {
      i.fn = [](Warp& w, const Inst&, u32) { ++w.wgmma_committed; };
      return true;
    }
    if (full == "wgmma.wait_group.sync.aligned") {
      i.target = l.number(l.arg(0));
      i.fn = [](Warp& w, const Inst& i, u32) { complete_wgmma(w, i.target); };
      return true;
    }
    const std::string& shape = s.op.size() > 4 ? s.op[4] : s.op[0];
    if (s.op.size() != 8 || s.op[1] != "mma_async" || !shape.starts_with("m64n") ||
        !shape.ends_with("k16") || l.type() != "bf16" || l.type(1) != "bf16" || l.type(2) != "f32")
      return false;
    const u32 columns = static_cast<u32>(std::stoul(shape.substr(4)));
    if (columns % 8 != 0 || columns > 256 || s.args.size() != 8 ||
        l.arg(0).list.size() != columns / 2 || l.arg(4).text != "1" || l.arg(5).text != "1")
      return false;
    std::vector<const Operand*> parts;
    for (const Operand& o : l.arg(0).list) parts.push_back(&o);
    l.list(i, parts, "f32");
    i.a = l.slot(l.arg(1), true, "b64");
    i.b = l.slot(l.arg(2), true, "b64");
    i.c = l.predicate(l.arg(3));
    i.flag = l.arg(6).text == "1";
    i.flag2 = l.arg(7).text == "1";
    i.fn = wgmma;
    return true;
  }
  return false;
}
}  // namespace retort::ptx
