-- The body that Apache read, as one line; the head is in its forensic log.
function handle(r)
  local body = r:requestbody(nil, 16777216) or ''
  local file = io.open(os.getenv('ORACLE_BODIES'), 'a')
  file:write((r.headers_in['X-Oracle-Id'] or '-') .. ' ' .. r:base64_encode(body) .. '\n')
  file:close()
  r.content_type = 'text/plain'
  r:write('ok')
  return apache2.OK
end
