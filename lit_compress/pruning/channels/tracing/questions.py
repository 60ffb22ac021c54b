"""Calls that ask about a tensor, and compute nothing with it."""

from __future__ import annotations

_QUESTIONS = """
size dim numel nelement ndimension stride storage_offset element_size get_device is_contiguous
is_floating_point is_complex is_signed is_nested is_inference is_same_size has_names len hash
repr format str data_ptr is_sparse is_quantized is_pinned result_type can_cast promote_types
new_empty new_zeros new_ones new_full new_tensor
"""
_PROPERTIES = """
shape dtype device ndim layout requires_grad is_leaf grad_fn is_cuda is_cpu is_mps is_sparse
is_quantized is_nested names itemsize nbytes _version is_meta output_nr
"""
#: Calls that ask about a tensor without reading its values. They are not counted: a layer may ask
#: more of a tensor that it has not seen before.
INERT = frozenset((*_QUESTIONS.split(), *(f"get {name}" for name in _PROPERTIES.split())))
