-- What lighttpd parsed, as one line of four words in base64.
local r = lighty.r
if not r.req_body.collect then return lighty.REQUEST_WAIT or 0 end
local lines = {{}}
for name, value in pairs(r.req_header) do lines[#lines + 1] = name .. ': ' .. value end
local file = io.open('{folder}/seen.log', 'a')
local b64 = lighty.c.b64enc
-- 1.4.69 gives the head before the body where both came in one piece; bytes_in counts the body alone.
local length = r.req_body.bytes_in
local body = length > 0 and string.sub(r.req_body.get or '', -length) or ''
file:write(b64(r.req_attr['request.method']), ' ', b64(r.req_attr['request.orig-uri']), ' ',
           b64(table.concat(lines, '\n')), ' ', b64(body), '.\n')
file:close()
r.resp_header['Content-Type'] = 'text/plain'
r.resp_body.set({{'ok'}})
return 200
