// Node's https. Arguments: port, chain, key. Each request is one line of JSON.
const https = require('https'), fs = require('fs');
const [port, cert, key] = [Number(process.argv[2]), fs.readFileSync(process.argv[3]), fs.readFileSync(process.argv[4])];
const server = https.createServer({key, cert, maxHeaderSize: 65536}, (request, response) => {
  const parts = [], headers = [];
  request.on('data', part => parts.push(part));
  request.on('end', () => {
    const raw = request.rawHeaders;
    for (let at = 0; at < raw.length; at += 2) headers.push([raw[at], raw[at + 1]]);
    console.log(JSON.stringify({method: request.method, target: request.url, headers,
                                body: Buffer.concat(parts).toString('base64')}));
    response.writeHead(200, {'content-length': 2});
    response.end(request.method === 'HEAD' ? undefined : 'ok');
  });
});
server.on('clientError', (error, socket) => { console.log(JSON.stringify({fault: String(error.code)})); socket.destroy(); });
server.listen(port, '127.0.0.1');
