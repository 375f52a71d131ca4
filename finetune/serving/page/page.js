'use strict';

const FEW = 5;  // Labels that are shown at first.
const at = id => document.getElementById(id);
const percent = share => share >= 0.9995 || share < 0.0005 ? (share < 0.5 ? '< 0.1 %' : '> 99.9 %') : (100 * share).toFixed(1) + ' %';

let token = new URLSearchParams(location.hash.slice(1)).get('token') || '';
let model = null;     // What the server says of itself.
let picture = null;   // The file that was asked about last.
let asked = 0;        // Counts questions, so that an answer that comes late is not taken for a later one's.
let stream = null;    // Of the camera.

if (token) history.replaceState(null, '', location.pathname);  // Out of sight.

async function get(path, options = {}) {
  const headers = { ...options.headers, ...(token ? { Authorization: 'Bearer ' + token } : {}) };
  const response = await fetch(path, { ...options, headers, cache: 'no-store' });
  return { status: response.status, told: await response.json() };
}

// What there is ---------------------------------------------------------------------------------------------

async function introduce() {
  const { status, told } = await get('/model').catch(() => ({ status: 0 }));
  at('token-form').hidden = status !== 401;
  at('drop').hidden = status === 401;
  if (status !== 200) {
    if (status === 0) complain('The server does not answer.', 'It may have been stopped.');
    if (status === 401 && token) complain('This is not the token.', '');
    return;
  }
  model = told;
  at('trouble').hidden = true;
  const labels = model.labels.slice(0, 12).join(', ') + (model.labels.length > 12 ? ', …' : '');
  const unknown = model.can_abstain ? ' What looks like none of them is unknown.' : '';
  at('about').textContent = `${model.name} tells ${model.labels.length} labels: ${labels}.${unknown}`;
  at('camera').hidden = !(navigator.mediaDevices && navigator.mediaDevices.getUserMedia);
}

// One picture -----------------------------------------------------------------------------------------------

function take(file) {
  closeCamera();
  at('second').checked = false;
  picture = file;
  if (model && file.size > model.most_bytes) {
    at('result').hidden = true;
    complain('This picture is too large.', `It has ${megabytes(file.size)}, and ${megabytes(model.most_bytes)} are taken. Save it smaller first.`);
    return;
  }
  ask(true);
}

async function ask(isNew) {
  const number = ++asked;
  at('result').classList.add('waiting');
  const explain = at('second').checked ? 'second' : '1';
  const headers = { 'Content-Type': 'application/octet-stream' };
  const path = `/predict?top_k=${model ? model.labels.length : 5}&explain=${explain}`;
  let answer;
  try {
    answer = await get(path, { method: 'POST', body: picture, headers });
  } catch {
    answer = { status: 0, told: {} };
  }
  if (number !== asked) return;
  at('result').classList.remove('waiting');
  if (answer.status === 200) {
    show(answer.told, isNew);
  } else {
    at('result').hidden = true;
    explainTrouble(answer);
  }
}

function show(told, isNew) {
  at('trouble').hidden = true;
  at('drop').classList.add('small-now');
  const [first, second] = told.answers;
  const isUnknown = told.unknown === true;
  const best = at('best');
  best.textContent = isUnknown ? 'unknown ' : first.label + ' ';
  if (!isUnknown) {
    const share = document.createElement('small');
    share.textContent = percent(first.probability);
    best.append(share);
  }
  at('remark').textContent = remark(told, first, isUnknown);
  list(told.answers, isUnknown);
  showEvidence(told, first, second, isUnknown);
  if (isNew) {
    URL.revokeObjectURL(at('picture').src);
    at('picture').hidden = false;
    at('not-shown').hidden = true;
    at('picture').src = URL.createObjectURL(picture);
  }
  at('result').hidden = false;
}

function remark(told, first, isUnknown) {
  if (told.familiarity === undefined) return '';
  const share = (100 * told.familiarity).toFixed(told.familiarity < 0.1 ? 1 : 0);
  return isUnknown
    ? `It looks like none of the labels: only ${share} % of real pictures look at least as strange. The nearest is ${first.label}.`
    : `${share} % of real pictures look at least as strange.`;
}

function list(answers, isUnknown) {
  const labels = at('labels');
  labels.replaceChildren(...answers.map(({ label, probability }, number) => {
    const row = document.createElement('li'), name = document.createElement('span'), share = document.createElement('span');
    const track = document.createElement('div'), bar = document.createElement('div');
    name.textContent = label;
    share.textContent = percent(probability);
    share.className = 'number';
    track.className = 'track';
    bar.className = 'bar';
    bar.style.width = (100 * probability) + '%';
    track.append(bar);
    row.append(name, share, track);
    row.hidden = number >= FEW;
    return row;
  }));
  labels.classList.toggle('unsure', isUnknown);
  at('more').hidden = answers.length <= FEW;
  at('more').textContent = `Show all ${answers.length} labels`;
}

function showEvidence(told, first, second, isUnknown) {
  at('evidence').hidden = !told.explanation;
  if (!told.explanation) return;
  const against = at('second').checked && second;
  const what = against ? `${first.label} and not for ${second.label}` : first.label;
  at('explanation').src = told.explanation;
  at('explanation').alt = `The part that the network looked at; what spoke for ${what} lies at the ${told.where}.`;
  at('explained').textContent = `In colour: what spoke for ${what}. The network looks at the middle of a picture.`;
  at('second-label').hidden = !second;
  if (second) at('second-label').lastElementChild.textContent = `Only what does not speak for ${second.label} too`;
}

// What goes wrong -------------------------------------------------------------------------------------------

const WORDS = {
  empty_file: 'This file is empty.', truncated: 'This picture is cut short.', corrupt: 'This picture is damaged.',
  too_many_pixels: 'This picture is too large.', too_large: 'This picture is too large.', busy: 'The server is busy.',
  too_slow: 'The picture did not arrive in time.', unsupported_format: 'Pictures of this kind are not read.',
  unsupported_coding: 'Pictures of this kind are not read.', not_an_image: 'This is no picture.',
};

function explainTrouble({ status, told }) {
  if (status === 0) {
    complain('The server does not answer.', 'It may have been stopped.');
  } else if (status === 401) {
    introduce();
  } else {
    complain(WORDS[told.error] || (status === 422 ? 'This is no good picture.' : 'This did not work.'), told.detail || '');
  }
}

function complain(what, why) {
  const strong = document.createElement('b');
  strong.textContent = what;
  at('trouble').replaceChildren(strong, why);
  at('trouble').hidden = false;
}

const megabytes = bytes => (bytes / 2 ** 20).toFixed(1) + ' MB';

// Ways to give one ------------------------------------------------------------------------------------------

at('choose').addEventListener('click', () => at('file').click());
at('file').addEventListener('change', () => {
  if (at('file').files.length) take(at('file').files[0]);
  at('file').value = '';  // The same file can be chosen again.
});

document.addEventListener('dragover', event => {
  event.preventDefault();
  at('drop').classList.add('over');
});
document.addEventListener('dragleave', event => {
  if (!event.relatedTarget) at('drop').classList.remove('over');
});
document.addEventListener('drop', event => {
  event.preventDefault();
  at('drop').classList.remove('over');
  if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  else complain('This is no file.', 'Save the picture first, or copy it and paste it here.');
});
document.addEventListener('paste', event => {
  const file = [...event.clipboardData.files].find(each => each.type.startsWith('image/')) || event.clipboardData.files[0];
  if (file) {
    event.preventDefault();
    take(file);
  }
});

at('camera').addEventListener('click', async () => {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment', width: { ideal: 1280 } } });
  } catch {
    complain('There is no camera to use.', 'None is there, or the browser was not allowed to use it.');
    return;
  }
  at('video').srcObject = stream;
  at('live').hidden = false;
  at('trouble').hidden = true;
  at('shoot').focus();
});
at('shoot').addEventListener('click', () => {
  const video = at('video'), canvas = document.createElement('canvas');
  if (!video.videoWidth) return;
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext('2d').drawImage(video, 0, 0);
  canvas.toBlob(take, 'image/jpeg', 0.95);
});
at('no-camera').addEventListener('click', () => {
  closeCamera();
  at('camera').focus();
});

function closeCamera() {
  if (stream) stream.getTracks().forEach(track => track.stop());
  stream = null;
  at('video').srcObject = null;
  at('live').hidden = true;
}

at('second').addEventListener('change', () => ask(false));
at('more').addEventListener('click', () => {
  at('more').hidden = true;
  [...at('labels').children].forEach(row => { row.hidden = false; });
});
at('picture').addEventListener('error', () => {
  at('picture').hidden = true;
  at('not-shown').hidden = false;
});
at('token-form').addEventListener('submit', event => {
  event.preventDefault();
  token = at('token').value;
  introduce();
});

introduce();
