/* The second stage of an RP2040's boot: 256 bytes that the first stage checks, copies to RAM and
 * runs, which map the flash and start the program behind them.
 *
 * "RP2040 Datasheet", sections 2.8.1.3 (second stage, checksum) and 4.10.13 (SSI registers). Any
 * flash with the serial read command 03h will do; at 133 MHz / 4 it stays below that command's
 * 50 MHz (Winbond W25Q16JV, 9.6). The checksum in the last word is the CRC-32 of the datasheet
 * (polynomial 04C11DB7, all ones at first, not reflected); change it with the code. */

__asm(".syntax unified\n\t"
      ".section .boot, \"ax\", %progbits\n\t"
      ".balign 256\n"
      "td_boot:\n\t"
      "ldr r3, =0x18000000\n\t" /* SSI */
      "movs r0, #0\n\t"
      "str r0, [r3, #8]\n\t" /* SSIENR: off while it changes */
      "movs r1, #4\n\t"
      "str r1, [r3, #0x14]\n\t" /* BAUDR: a quarter of the core clock */
      "ldr r1, =0x001F0300\n\t"
      "str r1, [r3]\n\t"        /* CTRLR0: 32-bit frames, DFS_32=31; send, then read, TMOD=3 */
      "str r0, [r3, #4]\n\t"    /* CTRLR1: one frame */
      "ldr r1, =0x03000218\n\t" /* command 03h; 8 bits of it, INST_L=2; 24 of address, ADDR_L=6 */
      "ldr r2, =0x180000F4\n\t"
      "str r1, [r2]\n\t" /* SPI_CTRLR0 */
      "movs r1, #1\n\t"
      "str r1, [r3, #0x10]\n\t" /* SER: the flash's chip select */
      "str r1, [r3, #8]\n\t"    /* SSIENR */
      "ldr r0, =0x10000100\n\t" /* the vectors, behind these 256 bytes */
      "ldr r1, =0xE000ED08\n\t" /* VTOR */
      "str r0, [r1]\n\t"
      "ldmia r0, {r0, r1}\n\t"
      "msr msp, r0\n\t"
      "bx r1\n\t"
      ".ltorg\n\t"
      ".org td_boot + 252\n\t"
      ".word 0x2fe47672\n\t"
      ".text");
