// The type f16 may be used. This piece comes first in a module.
//
// Assumes: the device has the feature shader-f16.

enable f16;
