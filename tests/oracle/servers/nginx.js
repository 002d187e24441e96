// What nginx parsed, for its access log: one line of JSON.
function answer(r) {
  const body = r.requestBuffer;
  r.variables.seen = JSON.stringify({method: r.method, target: r.variables.request_uri, headers: r.rawHeadersIn,
                                     body: body && body.length ? body.toString('base64') : ''});
  r.return(200, 'ok');
}
export default {answer};
