#!/bin/sh
# The body that Apache read, in a file of its own; the head is in its forensic log.
base64 -w0 >"{folder}/bodies/${{HTTP_X_ORACLE_ID:--}}"
printf 'Content-Type: text/plain\r\nContent-Length: 2\r\n\r\nok'
