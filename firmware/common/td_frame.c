/* COBS framing with a CRC-32, one byte at a time, in one buffer for both directions. */
#include "td_frame.h"

#include "td_platform.h"

uint16_t td_load16(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] | ((uint32_t)bytes[1] << 8));
}

uint32_t td_load32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | ((uint32_t)bytes[1] << 8) | ((uint32_t)bytes[2] << 16) |
           ((uint32_t)bytes[3] << 24);
}

void td_store16(uint8_t *bytes, uint16_t value)
{
    bytes[0] = (uint8_t)(value & 0xFFu);
    bytes[1] = (uint8_t)(value >> 8);
}

void td_store32(uint8_t *bytes, uint32_t value)
{
    td_store16(bytes, (uint16_t)(value & 0xFFFFu));
    td_store16(bytes + 2, (uint16_t)(value >> 16));
}

void td_store64(uint8_t *bytes, uint64_t value)
{
    td_store32(bytes, (uint32_t)(value & 0xFFFFFFFFu));
    td_store32(bytes + 4, (uint32_t)(value >> 32));
}

/* Two look-ups per byte: 64 bytes of table instead of 1024, and the line is slower anyway. */
uint32_t td_crc32(const uint8_t *bytes, uint32_t length)
{
    static const uint32_t table[16] = {
        0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u,
        0x4DB26158u, 0x5005713Cu, 0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu,
        0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu,
    };
    uint32_t crc = UINT32_MAX;
    for (uint32_t i = 0; i < length; i++) {
        crc = (crc >> 4) ^ table[(crc ^ bytes[i]) & 15u];
        crc = (crc >> 4) ^ table[(crc ^ ((uint32_t)bytes[i] >> 4)) & 15u];
    }
    return ~crc;
}

uint8_t *td_frame_payload(td_frame *frame)
{
    return frame->bytes + TD_FRAME_HEADER;
}

uint8_t td_frame_kind(const td_frame *frame)
{
    return frame->bytes[0];
}

uint16_t td_frame_sequence(const td_frame *frame)
{
    return td_load16(frame->bytes + 1);
}

uint32_t td_frame_length(const td_frame *frame)
{
    return td_load16(frame->bytes + 3);
}

void td_frame_reset(td_frame *frame)
{
    frame->length = 0;
    frame->block = 0;
    frame->left = 0;
    frame->overflow = 0;
}

static void append(td_frame *frame, uint8_t byte)
{
    if (frame->length < TD_FRAME_BYTES) {
        frame->bytes[frame->length++] = byte;
    } else {
        frame->overflow = 1;
    }
}

static td_frame_state finish(const td_frame *frame)
{
    if (frame->block == 0) {
        return TD_FRAME_NONE; /* nothing between two zero bytes: the host flushing the line */
    }
    if (frame->left != 0 || frame->overflow || frame->length < TD_FRAME_HEADER + TD_FRAME_CRC) {
        return TD_FRAME_CORRUPT;
    }
    uint32_t covered = frame->length - TD_FRAME_CRC;
    if (td_frame_length(frame) != covered - TD_FRAME_HEADER) {
        return TD_FRAME_CORRUPT;
    }
    if (td_crc32(frame->bytes, covered) != td_load32(frame->bytes + covered)) {
        return TD_FRAME_CORRUPT;
    }
    return TD_FRAME_READY;
}

td_frame_state td_frame_accept(td_frame *frame, uint8_t byte)
{
    td_frame_state state = TD_FRAME_NONE;
    if (byte == 0) {
        state = finish(frame);
        td_frame_reset(frame); /* the bytes stay until the next one arrives */
    } else if (frame->left != 0) {
        append(frame, byte);
        frame->left--;
    } else {
        if (frame->block != 0 && frame->block != 0xFFu) {
            append(frame, 0);
        }
        frame->block = byte;
        frame->left = (uint8_t)(byte - 1u);
    }
    return state;
}

void td_frame_send(td_frame *frame, uint8_t kind, uint16_t sequence, uint32_t length)
{
    uint8_t *bytes = frame->bytes;
    bytes[0] = kind;
    td_store16(bytes + 1, sequence);
    td_store16(bytes + 3, (uint16_t)length);
    uint32_t total = TD_FRAME_HEADER + length;
    td_store32(bytes + total, td_crc32(bytes, total));
    total += TD_FRAME_CRC;

    td_link_put(0);
    uint32_t start = 0;
    for (;;) {
        uint32_t run = 0; /* non-zero bytes from `start`, at most 254 */
        while (start + run < total && run < 254u && bytes[start + run] != 0) {
            run++;
        }
        td_link_put((uint8_t)(run + 1u));
        for (uint32_t i = 0; i < run; i++) {
            td_link_put(bytes[start + i]);
        }
        start += run;
        if (start >= total) {
            break;
        }
        if (run < 254u) {
            start++; /* the zero that ended the run; it may be the last byte of all */
            if (start == total) {
                td_link_put(1);
                break;
            }
        }
    }
    td_link_put(0);
    td_link_flush();
}
