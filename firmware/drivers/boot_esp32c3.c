/* What an ESP32-C3 (revision 3 and later) wants first in its flash to run it in place.
 *
 * "ESP32-C3 Technical Reference Manual" v1.1, section 7.3 (SPI boot, "direct boot"): with these two
 * words at the start the boot code maps the flash to 0x42000000 and 0x3C000000 and jumps to
 * 0x42000008. */
#include <stdint.h>

#define DIRECT_BOOT 0xAEDB041Du

extern const uint32_t td_boot[2];
__attribute__((section(".boot"), used)) const uint32_t td_boot[2] = {DIRECT_BOOT, DIRECT_BOOT};
