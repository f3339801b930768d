/* The block by which an RP2350 knows a program and its instruction set.
 *
 * "RP2350 Datasheet", section 5.9.5 (minimum Arm and RISC-V image metadata): a loop of one block in
 * the first 4 kB. The program begins at its lowest address: a vector table or, for RISC-V, code. */
#include <stdint.h>

#define BLOCK_START 0xFFFFDED3u
#define BLOCK_END 0xAB123579u
#define LAST_ITEM 0x000001FFu /* 1 word of items before */
#define NEXT_BLOCK 0u         /* this one */

/* Item 0x42, IMAGE_TYPE, 1 word; flags: executable, RP2350, Arm in secure state or RISC-V. */
#if defined(__riscv)
#define IMAGE_TYPE 0x11010142u
#else
#define IMAGE_TYPE 0x10210142u
#endif

extern const uint32_t td_boot_block[5];
__attribute__((section(".boot_block"), used)) const uint32_t td_boot_block[5] = {
    BLOCK_START, IMAGE_TYPE, LAST_ITEM, NEXT_BLOCK, BLOCK_END,
};
