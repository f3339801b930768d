/* Frames on a byte link: COBS between zero bytes, closed by a CRC-32.
 *
 *   kind u8 | sequence u16 | length u16 | payload[length] | crc u32        (little endian)
 *
 * COBS: S. Cheshire and M. Baker, "Consistent Overhead Byte Stuffing", IEEE/ACM ToN 7(2), 1999.
 * CRC-32/ISO-HDLC: polynomial 0x04C11DB7, reflected, all ones before and after. Of a million frames
 * spoilt at random, 16 bits of check would let 15 pass. */
#ifndef TD_FRAME_H
#define TD_FRAME_H

#include <stdint.h>

#include "td_board.h"

#define TD_FRAME_HEADER 5u
#define TD_FRAME_CRC 4u
#define TD_REQUEST_FIELDS 8u /* the longest fixed fields before data: READ */
#define TD_PAYLOAD_BYTES (TD_REQUEST_FIELDS + TD_CHUNK_BYTES)
#define TD_FRAME_BYTES (TD_FRAME_HEADER + TD_PAYLOAD_BYTES + TD_FRAME_CRC)

typedef enum { TD_FRAME_NONE, TD_FRAME_READY, TD_FRAME_CORRUPT } td_frame_state;

typedef struct {
    uint32_t length;              /* bytes decoded so far */
    uint8_t block;                /* code byte of the current COBS block, 0 before the first */
    uint8_t left;                 /* bytes still to come in it */
    uint8_t overflow;             /* more bytes than the buffer holds */
    uint8_t bytes[TD_FRAME_BYTES]; /* also where the answer is built */
} td_frame;

/* Start afresh: forget a partly received frame. */
void td_frame_reset(td_frame *frame);

/* Take one byte of the line. TD_FRAME_READY: header, length and CRC agree. */
td_frame_state td_frame_accept(td_frame *frame, uint8_t byte);

/* Send the `length` payload bytes that stand in td_frame_payload(frame). */
void td_frame_send(td_frame *frame, uint8_t kind, uint16_t sequence, uint32_t length);

uint8_t *td_frame_payload(td_frame *frame);
uint8_t td_frame_kind(const td_frame *frame);
uint16_t td_frame_sequence(const td_frame *frame);
uint32_t td_frame_length(const td_frame *frame); /* payload bytes */

uint32_t td_crc32(const uint8_t *bytes, uint32_t length);
uint16_t td_load16(const uint8_t *bytes);
uint32_t td_load32(const uint8_t *bytes);
void td_store16(uint8_t *bytes, uint16_t value);
void td_store32(uint8_t *bytes, uint32_t value);
void td_store64(uint8_t *bytes, uint64_t value);

#endif
